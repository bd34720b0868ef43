"""inspect's way to a target: what has been answered once is not asked again."""

from datetime import UTC, datetime
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelCall,
    ModelOutput,
    get_model,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from configs.errors import UserError
from evals.asked import ASKED
from evals.host import Host, HostError
from evals.kept_answers import KeptAnswers, answer_key

# Names the provider in inspect's logs; the address and the key are given, never looked up by it.
PROVIDER = "tunery"
REQUEST_S = 600.0
NOT_ASKED = "not_asked"
ASKED_AT = "asked_at"
SENT = {"role", "content", "tool_calls", "tool_call_id"}
# What does not change the answer to a request.
OPERATIONAL = {
    *("max_connections", "adaptive_connections", "max_retries", "timeout", "attempt_timeout"),
    *("stream_idle_timeout", "cache", "batch", "fail_on_refusal"),
}


class ChatAPI(ModelAPI):
    """inspect's provider of a target's answers; `keep_in` has to be called before the first one."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (inspect's own signature)
        *,
        max_retries: int,
        requests_per_minute: float | None = None,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        api = get_model(
            f"openai-api/{PROVIDER}/{model_name}",
            base_url=base_url,
            api_key=api_key,
            memoize=False,
            client_timeout=REQUEST_S,
            max_retries=0,
        ).api
        self.host = Host(api, max_retries=max_retries, requests_per_minute=requests_per_minute)
        self._kept: KeptAnswers | None = None
        self._source = ""

    def keep_in(self, kept: KeptAnswers, *, source: str) -> None:
        """Look answers up and keep them there; source: see `answer_key`."""
        self._kept, self._source = kept, source

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> tuple[ModelOutput, ModelCall]:
        """The kept answer to the question that the solver has announced in `ASKED`, or a new one.

        Once the host has been given up, answers are empty and marked by `NOT_ASKED`: inspect would
        take half a second over each error. Errors: `HostError` where it refuses this question.
        """
        assert self._kept is not None, "nobody has said where answers are kept"
        request = self._describe(input, tools, tool_choice, config)
        asked = ASKED.get()
        key = answer_key(self._source, asked, request)
        found = self._kept.find(key)
        if found is not None:
            # inspect takes the call's time for the answer's, and would measure this lookup.
            return found, ModelCall.create({}, {}, time=found.time)
        try:
            output, call = await self.host.ask(input, tools, tool_choice, config)
        except HostError:
            if self.host.failure is None:
                raise
            return _no_answer(self.model_name)
        output.time = call.time
        output.metadata = {**(output.metadata or {}), ASKED_AT: _now()}
        # A prompt that was too long for this server may fit the next one.
        if output.stop_reason != "model_length":
            try:
                self._kept.add(key, asked, output)
            except (OSError, UserError) as error:
                self.host.give_up(HostError(str(error)))
                return _no_answer(self.model_name)
        return output, call

    async def aclose(self) -> None:
        """Close the connections."""
        await self.host.aclose()

    def _describe(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> dict[str, Any]:
        """All that the answer depends on, in JSON's types."""
        return {
            "model": self.model_name,
            "messages": [
                message.model_dump(mode="json", exclude_none=True, include=SENT)
                for message in input
            ],
            "tools": [tool.model_dump(mode="json", exclude_none=True) for tool in tools],
            "tool_choice": tool_choice if isinstance(tool_choice, str) else tool_choice.name,
            "config": config.model_dump(mode="json", exclude_none=True, exclude=OPERATIONAL),
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _no_answer(model: str) -> tuple[ModelOutput, ModelCall]:
    output = ModelOutput.from_content(model, "", stop_reason="unknown")
    output.metadata = {NOT_ASKED: True}
    return output, ModelCall.create({}, {}, time=0.0)


# Used as a decorator it would leave a function in the place of the class.
modelapi(name=PROVIDER)(ChatAPI)
