"""Recorded answers behind inspect's model interface, so that they go through the same tasks,
scorers and logs as those of a host.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelCall,
    ModelOutput,
    get_model,
    model_output_from_openai,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from configs.errors import UserError
from evals.asked import ASKED, Asked
from evals.prompts import prompt_sha256
from evals.recording import RECORD_AGAIN, Recording, open_recording
from evals.recording_format import RecordedAnswer

PROVIDER = "recorded"
UNKNOWN_TIME = 0.0
"""inspect's own word for a request that was not measured."""


def recorded_model(recording: Path, *, name: str) -> Model:
    """A model that answers each question as the recording has it, with its tokens and seconds.

    name: the recorded model's, for the logs. It opens no connection and reads no key; a prompt that
    is not the recorded one is an error. Errors: `UserError` where the recording cannot be read.
    """
    _open(recording.resolve())
    return get_model(f"{PROVIDER}/{name}", recording=str(recording.resolve()), memoize=False)


@modelapi(name=PROVIDER)
class RecordedAPI(ModelAPI):
    """inspect's provider of recorded answers."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (inspect's own signature)
        *,
        recording: str,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self._recording = _open(Path(recording))

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> tuple[ModelOutput, ModelCall]:
        """The recorded answer to the question that the solver has announced in `ASKED`."""
        body = _sent_body(input, config)
        sha256 = prompt_sha256(body["messages"], body.get("tools", ()))
        answer = _find_answer(self._recording, ASKED.get(), sha256)
        completion = _build_completion(answer, self.model_name)
        output = await model_output_from_openai(completion)
        # The recording holds what inspect has read out of the host's answer. Read a second time, it
        # would lose white space at its ends and whatever looks like thinking.
        output.completion = output.message.content = answer["text"]
        # What inspect calls it; OpenAI's words, which the completion needs, are fewer.
        output.choices[0].stop_reason = answer["stop_reason"]  # type: ignore[assignment]
        # inspect takes the call's time for the answer's; without one it would measure this lookup.
        return output, ModelCall.create(body, completion, time=answer["seconds"] or UNKNOWN_TIME)


@lru_cache(maxsize=4)
def _open(file: Path) -> Recording:
    return open_recording(file)


def _find_answer(recording: Recording, asked: Asked, sha256: str) -> RecordedAnswer:
    answer = recording.answers.get(asked)
    if answer is not None and answer["prompt_sha256"] == sha256:
        return answer
    problem = "has no answer to it" if answer is None else "answers another prompt"
    # In one line, because it reaches the user through inspect's log of the question.
    raise UserError(
        f"task {asked.task}, question {asked.id}, epoch {asked.epoch}: the recording {problem} "
        f"({recording.path}); {RECORD_AGAIN}"
    )


def _sent_body(input: list[ChatMessage], config: GenerateConfig) -> dict[str, Any]:
    """Messages and tools as a host would get them: what the solver set, else the turns' texts."""
    exact = config.extra_body or {}
    messages = [{"role": message.role, "content": message.text} for message in input]
    return {"messages": messages, **exact}


def _build_completion(answer: RecordedAnswer, model: str) -> dict[str, Any]:
    """The answer in the host's form, so that inspect reads it by the code that reads a host's."""
    prompt_tokens, completion_tokens = answer["prompt_tokens"], answer["completion_tokens"]
    completion: dict[str, Any] = {
        "id": "recorded",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": answer["tool_calls"] or None,
                },
            }
        ],
    }
    if prompt_tokens is not None and completion_tokens is not None:
        completion["usage"] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
    return completion
