"""Requests to one host: within its limits, waiting while it is busy, giving up where it is broken.

inspect's provider sends them, without retries of its own: inspect's would not heed Retry-After, and
those of the openai client end at two minutes and come back all at the same moment.
"""

import anyio
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelCall,
    ModelOutput,
    RetryDecision,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from openai import APIError, APIStatusError

from evals.waiting import Pace, is_too_long, retry_wait_s

# They speak of the one request: its length, its content, a field. Others speak of all requests.
REFUSALS = {400, 413, 422}
# So many questions refused in a row, and it is not the questions.
MAX_REFUSALS = 5


class HostError(Exception):
    """Why a question was not answered: the host's own words, or that it said nothing."""

    def __repr__(self) -> str:
        # Its name for it is all that inspect hands on.
        return str(self)


class Host:
    """What stands between the questions in flight and their host.

    failure: why the host has been given up; from then on every question fails with it, without a
    request.
    """

    def __init__(
        self, api: ModelAPI, *, max_retries: int, requests_per_minute: float | None
    ) -> None:
        self.failure: HostError | None = None
        self._api = api
        self._max_retries = max_retries
        self._pace = Pace(requests_per_minute)
        self._given_up = anyio.Event()
        self._num_refused = 0

    async def ask(
        self,
        messages: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> tuple[ModelOutput, ModelCall]:
        """The host's answer, after as many attempts as it takes and `max_retries` allows.

        Errors: `HostError` where the host refuses the question, or was given up.
        """
        num_failed = 0
        while True:
            await self._wait(self._pace.wait_s(anyio.current_time()))
            if self.failure is not None:
                raise self.failure
            try:
                result = await self._api.generate(messages, tools, tool_choice, config)
                assert isinstance(result, tuple), "inspect's provider tells of the call"
                answered, call = result
                if isinstance(answered, Exception):
                    raise answered
                self._note_answer(answered)
                return answered, call
            except APIError as error:
                num_failed += 1
                wait_s = self._wait_before_retry(error, num_failed)
            await self._wait(wait_s)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    def give_up(self, failure: HostError) -> None:
        """Ask no more; whoever waits stops waiting."""
        self.failure = self.failure or failure
        self._given_up.set()

    async def _wait(self, seconds: float) -> None:
        """Return after so long, or at once when the host is given up."""
        if seconds > 0:
            with anyio.move_on_after(seconds):
                await self._given_up.wait()

    def _wait_before_retry(self, error: APIError, num_failed: int) -> float:
        """Seconds to wait. Errors: `HostError` where asking again is no use."""
        decision = self._api.should_retry(error)
        retry_after_s = decision.retry_after if isinstance(decision, RetryDecision) else None
        words = _words(error)
        if decision and num_failed <= self._max_retries and not is_too_long(retry_after_s):
            return retry_wait_s(num_failed, retry_after_s)
        if decision and is_too_long(retry_after_s):
            words += f" (the host asks to wait {retry_after_s:.0f} s)"
        elif num_failed > 1:
            words += f" (asked {num_failed} times)"
        failure = HostError(words)
        if isinstance(error, APIStatusError) and error.status_code in REFUSALS:
            self._note_refusal(failure)
        else:
            self.give_up(failure)
        raise failure from error

    def _note_answer(self, output: ModelOutput) -> None:
        # inspect makes an answer of a prompt that was refused as too long.
        if output.stop_reason == "model_length":
            self._note_refusal(HostError(output.completion))
        else:
            self._num_refused = 0

    def _note_refusal(self, failure: HostError) -> None:
        self._num_refused += 1
        if self._num_refused >= MAX_REFUSALS:
            self.give_up(HostError(f"{failure} ({MAX_REFUSALS} questions in a row)"))


def _words(error: APIError) -> str:
    """The host's own words, with the status before them; the client's where it said nothing."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    if isinstance(error, APIStatusError):
        return f"{error.status_code}: {said or error.message}"
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return f"{said or error.message}{cause}"
