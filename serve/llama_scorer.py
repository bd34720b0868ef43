"""What llama.cpp itself makes of held-out rows: log-probabilities, greedy answers, prompt ids.

llama.cpp tells log-probabilities of the tokens that it generates alone, so each token to be scored
is generated: a bias on its logit makes it the one that is taken, and what is told of it comes from
the logits before any bias. A token is scored the way it is served, one after the other behind the
cached tokens before it.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import httpx
import numpy as np

from configs.errors import UserError
from data.conversation import Conversation
from serve.llama_process import LlamaProcess, last_words, open_llama

NUM_TOP = 32
"""The likeliest tokens that are kept of every distribution."""
FORCE = 1e9
"""A bias that no logit outweighs."""
LEAST_LOG_PROB = math.log(float(np.finfo(np.float32).smallest_subnormal))
"""llama.cpp's probabilities are fp32: what is below is told as 0, and kept as this (-103.3)."""


class Row(Protocol):
    """A row to be scored: token ids, int32, (num_tokens,), and which of them count."""

    @property
    def conversation(self) -> Conversation:
        """The row's turns, for errors."""

    @property
    def ids(self) -> np.ndarray:
        """All tokens."""

    @property
    def scored(self) -> np.ndarray:
        """Ascending places of the tokens that are scored; never the first token."""

    @property
    def prompt_ids(self) -> np.ndarray:
        """The tokens that a greedy answer continues."""


class TokenScores(NamedTuple):
    """Of n scored tokens, row after row; k likeliest ones kept.

    log_probs, float64, (n,), in nats; top_ids, int32, (n, k), and top_log_probs, float64, (n, k),
    likeliest first.
    """

    log_probs: np.ndarray
    top_ids: np.ndarray
    top_log_probs: np.ndarray


@contextmanager
def open_gguf(
    file: Path,
    *,
    num_threads: int,
    context_length: int,
    mmproj: Path | None = None,
    lora: Path | None = None,
) -> Iterator["LlamaScorer"]:
    """Load a GGUF as the served engine does, in a process that ends with the block.

    context_length: tokens of prompt and answer together, cut to what the model was trained for;
    mmproj: the GGUF of the vision tower; lora: the GGUF of an adapter, applied in full. Raises
    `UserError` when a file is missing or is no usable GGUF.
    """
    with open_llama(
        file, num_threads=num_threads, context_length=context_length, mmproj=mmproj, lora=lora
    ) as process:
        yield LlamaScorer(file, process)


class LlamaScorer:
    """A model in llama.cpp, asked about texts; rows with images are for the caller to leave out.

    Every method raises `UserError` when llama.cpp ends under it.
    """

    def __init__(self, file: Path, process: LlamaProcess) -> None:
        self._file = file
        self._process = process
        self._context_length = int(self._ask("GET", "/slots")[0]["n_ctx"])
        self._vocab_size = int(self._ask("GET", "/v1/models")["data"][0]["meta"]["n_vocab"])
        letter = {"content": "a", "add_special": False}
        self._whole_token = int(self._ask("POST", "/tokenize", letter)["tokens"][-1])

    @property
    def pid(self) -> int:
        """The process that holds the model."""
        return self._process.pid

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""
        return self._context_length

    def score(self, rows: Sequence[Row]) -> TokenScores:
        """The scores of all rows' scored tokens, in order; they depend on the row alone.

        Raises `UserError` when a row is too long for the context or holds an unknown token.
        """
        places = [self._score_token(row, place) for row in rows for place in self._checked(row)]
        tops = [top[:NUM_TOP] for _, top in places]
        return TokenScores(
            log_probs=np.array([log_prob for log_prob, _ in places]),
            top_ids=np.array([[one["id"] for one in top] for top in tops], dtype=np.int32),
            top_log_probs=np.array([[_log_prob(one) for one in top] for top in tops]),
        )

    def answer(self, rows: Sequence[Row], *, max_tokens: int) -> list[list[int]]:
        """Greedy answers to the rows' prompts, as token ids, without the end token.

        Raises `UserError` when prompt and `max_tokens` together are too long for the context.
        """
        return [self._answer(row, max_tokens) for row in rows]

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """The ids that llama.cpp's chat interface evaluates before its answer; for texts alone.

        The turns go through the template and the tokenizer in the file, tools included. Raises
        `UserError` when the template refuses them.
        """
        _assert_no_images(conversation)
        prompt = self._ask("POST", "/apply-template", _chat(conversation))["prompt"]
        body = {"content": prompt, "add_special": True, "parse_special": True}
        ids: list[int] = self._ask("POST", "/tokenize", body)["tokens"]
        return ids

    def num_prompt_tokens(self, conversation: Conversation) -> int:
        """Positions that a chat completion evaluates before its answer, images included."""
        body = _chat(conversation) | {"max_tokens": 1, "cache_prompt": False}
        usage = self._ask("POST", "/v1/chat/completions", body)["usage"]
        return int(usage["prompt_tokens"])

    def _checked(self, row: Row) -> Sequence[int]:
        """The places to score, of a row that llama.cpp can take."""
        places: list[int] = row.scored.tolist()
        self._check_ids(row, row.ids)
        if places:
            self._check_length(row, places[-1] + 1)
        return places

    def _check_ids(self, row: Row, ids: np.ndarray) -> None:
        _assert_no_images(row.conversation)
        unknown = ids[(ids < 0) | (ids >= self._vocab_size)]
        if len(unknown):
            raise UserError(
                f"row {row.conversation.id} holds token {unknown[0]}, and the GGUF file knows "
                f"{self._vocab_size} tokens: it was made with another tokenizer",
                where=self._file,
                remedy="make the artefact again from the checkpoint that the rows were made with",
            )

    def _check_length(self, row: Row, num_tokens: int) -> None:
        if num_tokens > self._context_length:
            raise UserError(
                f"row {row.conversation.id} needs {num_tokens} tokens of context, and the model "
                f"was loaded with {self._context_length}",
                where=self._file,
                remedy="raise `serve.context_length`, or lower `model.max_length`",
            )

    def _score_token(self, row: Row, place: int) -> tuple[float, list[dict[str, Any]]]:
        """Log-probability of the token there, and the likeliest ones with theirs.

        The prompt's cache holds the tokens before since the last call; each row begins from
        nothing, since a prompt evaluated in other pieces rounds differently.
        """
        gold = int(row.ids[place])
        prompt = row.ids[:place].tolist()
        told = self._generate(prompt, forced=gold, cached=place != int(row.scored[0]))
        if told is not None:
            return _log_prob(told), told["top_logprobs"]
        # Nothing is told of a token that ends within a character: look it up beside another one.
        for num_top in (NUM_TOP, self._vocab_size):
            told = self._generate(prompt, forced=self._whole_token, num_top=num_top)
            assert told is not None
            for one in told["top_logprobs"]:
                if one["id"] == gold:
                    return _log_prob(one), told["top_logprobs"]
        raise AssertionError("all tokens were asked for")

    def _generate(
        self, prompt: list[int], *, forced: int, num_top: int = NUM_TOP, cached: bool = True
    ) -> dict[str, Any] | None:
        """What llama.cpp tells of a token that it is made to generate; None where nothing."""
        body = {
            "prompt": prompt,
            "n_predict": 1,
            "temperature": 0.0,
            "samplers": [],
            "logit_bias": [[forced, FORCE]],
            "n_probs": num_top,
            "post_sampling_probs": False,
            "cache_prompt": cached,
            "response_fields": ["completion_probabilities"],
        }
        told = self._ask("POST", "/completion", body).get("completion_probabilities")
        if not told:
            return None
        assert told[0]["id"] == forced, "the bias decides"
        one: dict[str, Any] = told[0]
        return one

    def _answer(self, row: Row, max_tokens: int) -> list[int]:
        prompt = row.prompt_ids
        self._check_ids(row, prompt)
        self._check_length(row, len(prompt) + max_tokens)
        body = {
            "prompt": prompt.tolist(),
            "n_predict": max_tokens,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "return_tokens": True,
            "cache_prompt": False,
            "response_fields": ["tokens", "stop_type"],
        }
        said = self._ask("POST", "/completion", body)
        tokens: list[int] = said["tokens"]
        return tokens[:-1] if said["stop_type"] == "eos" else tokens

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 (JSON)
        try:
            response = self._process.http.request(method, path, json=body)
        except httpx.TransportError as error:
            said = last_words(self._process.log)
            raise UserError(
                f"llama.cpp ended while it ran the model; it said:\n{said}",
                where=self._file,
                remedy="check that there is memory for the model, and that the file is whole",
            ) from error
        if response.is_error:
            raise UserError(
                f"llama.cpp refused to work on this: {response.text}",
                where=self._file,
                remedy="the artefact's template or tokenizer does not fit: make it again",
            )
        return response.json()


def _chat(conversation: Conversation) -> dict[str, Any]:
    """The turns and tools as the chat interface takes them."""
    body: dict[str, Any] = {"messages": list(conversation.messages)}
    return body | ({"tools": list(conversation.tools)} if conversation.tools else {})


def _assert_no_images(conversation: Conversation) -> None:
    """The caller's to leave out: images stand for vectors that token ids do not hold."""
    for message in conversation.messages:
        content = message["content"]
        assert isinstance(content, str) or all(part["type"] == "text" for part in content)


def _log_prob(told: dict[str, Any]) -> float:
    return max(float(told["logprob"]), LEAST_LOG_PROB)
