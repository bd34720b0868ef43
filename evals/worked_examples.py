"""Which training rows are shown as worked examples, however many rows there are."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from configs.errors import UserError
from data.conversation import Conversation
from data.evaluation_rows import question_problem
from evals.hash_sample import HashSample, hash_of
from evals.metrics.text import normalize_answer
from evals.prompts import asked_text
from evals.rows import is_plain, iter_rows, reference_answer

# Enough that the shortest third of them holds many different answers.
NUM_CANDIDATES = 3000


class ExampleCandidates:
    """Up to `NUM_CANDIDATES` rows that can be shown, the same ones in any order of the rows."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._sample: HashSample[Conversation] = HashSample(NUM_CANDIDATES)

    def wants(self, row_id: str) -> bool:
        """Whether the row of this id would be kept, so that others need not be parsed."""
        return self._sample.wants(self._key(row_id))

    def offer(self, row: Conversation) -> None:
        """Keep a row that is wanted, is nothing but texts and has an answer at its end."""
        if self.wants(row.id) and is_plain(row) and not question_problem(row):
            self._sample.add(self._key(row.id), row)

    def choose(self, count: int, *, asked: Collection[str] = ()) -> list[Conversation]:
        """`count` rows, or all where there are fewer; none that asks one of `asked`.

        They come from the shortest third, so that they fit a small context, and their answers
        differ; longer rows, and then answers already shown, are taken only where that third does
        not hold enough. asked: as `asked_text` gives them.
        """
        rows = [row for row in self._sample.rows() if asked_text(row.messages[:-1]) not in asked]
        return _with_different_answers(_short_ones_first(rows))[:count]

    def _key(self, row_id: str) -> int:
        return hash_of(f"{self.seed}\0{row_id}")


def choose_examples(rows: Iterable[Conversation], count: int, *, seed: int) -> list[Conversation]:
    """`count` training rows to show, the same ones for the same arguments in any order.

    Errors: `UserError` where fewer than `count` are plain texts.
    """
    candidates = ExampleCandidates(seed)
    for row in rows:
        candidates.offer(row)
    return _checked(candidates.choose(count), count)


def load_examples(file: Path, count: int, *, seed: int) -> list[Conversation]:
    """As `choose_examples` out of a parquet file of training rows, few of which are parsed.

    Errors: also `UserError` for a file that cannot be read.
    """
    candidates = ExampleCandidates(seed)
    for prepared in iter_rows(file) if count else ():
        if candidates.wants(prepared.id):
            candidates.offer(prepared.parse())
    return _checked(candidates.choose(count), count)


def _checked(chosen: list[Conversation], count: int) -> list[Conversation]:
    if len(chosen) < count:
        raise UserError(
            f"{count} worked examples need as many plain training rows; there are {len(chosen)}",
            remedy="lower evaluation.num_examples",
        )
    return chosen


def _short_ones_first(rows: Sequence[Conversation]) -> list[Conversation]:
    """The shortest third in the order given, then the others by length."""
    by_length = sorted(
        range(len(rows)),
        key=lambda number: sum(len(turn["content"]) for turn in rows[number].messages),
    )
    num_short = -(-len(rows) // 3)
    return [rows[n] for n in (*sorted(by_length[:num_short]), *by_length[num_short:])]


def _with_different_answers(rows: Sequence[Conversation]) -> list[Conversation]:
    """First the rows whose answers none before them gives, then the others."""
    fresh: list[Conversation] = []
    repeats: list[Conversation] = []
    shown: set[str] = set()
    for row in rows:
        answer = normalize_answer(reference_answer(row))
        (repeats if answer in shown else fresh).append(row)
        shown.add(answer)
    return [*fresh, *repeats]
