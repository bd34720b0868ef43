"""One answer out of llama.cpp's chunks: cut at stop strings, counted, and checked at its end."""

import hashlib

import orjson

from data.tokens.mistral_call_ids import CALL_ID, ID_DIGITS
from serve.engine import (
    ChoiceEnd,
    Completion,
    EngineError,
    EngineUnavailable,
    Event,
    RequestRefused,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from serve.engines.wire import ChunkReader, Json
from serve.stop_strings import StopStrings

SCHEMA_FIELD = "response_format.json_schema.schema"
CALL_ID_LENGTH = 9
JSON_BEGINNINGS = '{["-0123456789tfn'
NUM_LOOKED_AT = 8
"""Pieces of an answer, at its beginning, that are looked at for whether they begin JSON."""


class AnswerReader:
    """Turns llama.cpp's chunks of one answer into the events of a choice.

    ended: its last event has been given; usage: llama.cpp's counts so far.
    """

    def __init__(self, request: Completion, choice: int, *, asked: bytes) -> None:
        """asked: what is sent for the request, which ids of calls are drawn from."""
        self.ended = False
        self.usage = Usage(prompt_tokens=0, completion_tokens=0)
        self._choice = choice
        self._asked = asked
        self._reader = ChunkReader()
        self._text = _CutText(request.stop, choice)
        self._num_top = request.top_logprobs
        self._json: list[str] | None = [] if request.json_answer is not None else None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come, so that all else that llama.cpp says is of no use."""
        return self._text.matched

    def feed(self, chunk: Json) -> list[Event]:
        """The events of one chunk.

        Raises `EngineError` for an error in it, such as calls of tools that llama.cpp cannot read.
        """
        counts = chunk.get("timings")
        if counts:
            self.usage = Usage(
                prompt_tokens=counts["cache_n"] + counts["prompt_n"],
                completion_tokens=counts["predicted_n"],
            )
        events: list[Event] = []
        try:
            told = self._reader.feed(chunk)
        except EngineUnavailable as error:
            raise EngineError(str(error)) from None
        for event in told:
            if not self.stopped:
                self._take(event, events)
        return events

    def _take(self, event: Event, events: list[Event]) -> None:
        if isinstance(event, TextDelta):
            self._put(self._text.feed(event.text, self._shorten(event.logprobs)), events)
            if self._text.matched:
                self._end(ChoiceEnd(reason="stop", choice=self._choice), events)
        elif isinstance(event, ToolCallDelta):
            self._put(self._text.rest(), events)
            events.append(
                ToolCallDelta(
                    call=event.call,
                    arguments=event.arguments,
                    id=self._call_id(event),
                    name=event.name,
                    choice=self._choice,
                )
            )
        elif isinstance(event, ChoiceEnd):
            self._put(self._text.rest(), events)
            if event.reason == "stop":
                self._check_json()
            self._end(ChoiceEnd(reason=event.reason, choice=self._choice), events)

    def _call_id(self, event: ToolCallDelta) -> str | None:
        """Mistral's form stays. llama.cpp draws others by chance, and they would be in the prompt
        of the next request: these depend on the request alone.
        """
        if event.id is None or CALL_ID.fullmatch(event.id):
            return event.id
        digest = hashlib.sha256(self._asked + f":{self._choice}:{event.call}".encode()).digest()
        return "".join(ID_DIGITS[byte % len(ID_DIGITS)] for byte in digest[:CALL_ID_LENGTH])

    def _put(self, delta: TextDelta | None, events: list[Event]) -> None:
        if delta is not None:
            events.append(delta)
            if self._json is not None:
                self._json.append(delta.text)
                begun = "".join(self._json).lstrip() if len(self._json) <= NUM_LOOKED_AT else ""
                if begun and begun[0] not in JSON_BEGINNINGS:
                    raise _schema_refusal()

    def _end(self, event: ChoiceEnd, events: list[Event]) -> None:
        self.ended = True
        events.append(event)

    def _shorten(self, logprobs: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
        """llama.cpp tells nothing where no alternative is asked for, so there is one always."""
        if self._num_top != 0:
            return logprobs
        return tuple(
            TokenLogprob(token=one.token, utf8=one.utf8, logprob=one.logprob) for one in logprobs
        )

    def _check_json(self) -> None:
        if self._json is None:
            return
        try:
            orjson.loads("".join(self._json))
        except ValueError:
            raise _schema_refusal() from None


def _schema_refusal() -> RequestRefused:
    """llama.cpp drops, in silence, a schema that nothing can satisfy, and answers freely."""
    return RequestRefused("the schema cannot be followed", field=SCHEMA_FIELD)


class _CutText:
    """An answer's text up to its first stop string, with the log-probabilities of what goes out.

    A token goes with its first character: what lies wholly within a stop string goes nowhere.
    """

    def __init__(self, stop: tuple[str, ...], choice: int) -> None:
        self._stop = StopStrings(stop)
        self._choice = choice
        self._held: list[tuple[int, tuple[TokenLogprob, ...]]] = []
        """Where in the whole text the tokens of a piece begin, and what is told of them."""
        self._num_fed = 0
        self._num_out = 0

    @property
    def matched(self) -> bool:
        return self._stop.matched

    def feed(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> TextDelta | None:
        """What may go out now."""
        if logprobs:
            self._held.append((self._num_fed, logprobs))
        self._num_fed += len(text)
        return self._put(self._stop.feed(text))

    def rest(self) -> TextDelta | None:
        """What was held back, once it is known to be no stop string."""
        return None if self.matched else self._put(self._stop.rest())

    def _put(self, text: str) -> TextDelta | None:
        if not text:
            return None
        self._num_out += len(text)
        logprobs: tuple[TokenLogprob, ...] = ()
        while self._held and self._held[0][0] < self._num_out:
            logprobs += self._held.pop(0)[1]
        return TextDelta(text=text, choice=self._choice, logprobs=logprobs)
