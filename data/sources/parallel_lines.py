"""Two text files that belong together line by line: the questions, and the answer to each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from configs.data_schema import ParallelLinesSource, QuestionAnswerShape
from configs.errors import UserError
from data.checks import RowError
from data.conversation import FixedSide, ReadRows
from data.sources.json_lines import Rows
from data.sources.paths import one_file
from data.sources.streams import Place, bounded_lines, open_stream
from data.sources.table import RowRules, settle_rules

CHUNK_BYTES = 1 << 20
SHAPE = QuestionAnswerShape(kind="question_answer", question="question", answer="answer")


@dataclass(frozen=True, kw_only=True)
class PairChunk:
    """Lines of both files, from line `first`; columns `question`, `answer` and `line`."""

    name: str
    first: int
    pairs: list[tuple[bytes, bytes]]
    side: FixedSide = ""

    def rows(self) -> Rows:
        """Each pair's place and columns; where both lines are blank there is no row."""
        for number, (question, answer) in enumerate(self.pairs, start=self.first):
            if question.isspace() and answer.isspace():
                continue
            where = f"{self.name}:{number}"
            try:
                yield (
                    where,
                    {
                        "question": question.decode(),
                        "answer": answer.decode(),
                        "line": str(number),
                    },
                )
            except UnicodeDecodeError:
                yield where, RowError("not valid UTF-8")


@dataclass(frozen=True, kw_only=True)
class PairedFiles:
    """The two files; they have the same number of lines, or all answers would be shifted."""

    questions: Path
    answers: Path

    def chunks(self) -> Iterator[PairChunk]:
        """Blocks of pairs. Errors: `UserError` where one file ends before the other."""
        asked = Place(self.questions, unit="line")
        answered = Place(self.answers, unit="line")
        pairs: list[tuple[bytes, bytes]] = []
        size = 0
        with open_stream(asked) as questions, open_stream(answered) as answers:
            lines = zip_longest(bounded_lines(questions), bounded_lines(answers))
            for number, (question, answer) in enumerate(lines, start=1):
                if question is None or answer is None:
                    raise self._uneven(number - 1, ended=asked if question is None else answered)
                asked.number = answered.number = number
                pairs.append((question, answer))
                size += len(question) + len(answer)
                if size >= CHUNK_BYTES:
                    yield self._chunk(number, pairs)
                    pairs, size = [], 0
        if pairs:
            yield self._chunk(asked.number, pairs)

    def _chunk(self, last: int, pairs: list[tuple[bytes, bytes]]) -> PairChunk:
        return PairChunk(name=self.questions.name, first=last - len(pairs) + 1, pairs=pairs)

    def _uneven(self, num_lines: int, *, ended: Place) -> UserError:
        other = self.answers if ended.file == self.questions else self.questions
        return UserError(
            f"{ended.file.name} ends after line {num_lines:,}, and {other.name} goes on",
            where=f"{self.questions}, {self.answers}",
            remedy="give two files in which the same lines belong together",
        )


@dataclass(frozen=True, kw_only=True)
class ParallelRows:
    """The rows of two parallel files."""

    files: PairedFiles
    rules: RowRules
    licence: str
    attribution: str
    told: str = ""

    @property
    def test_ids(self) -> frozenset[str]:
        """Ids of an official test split, all of which ought to be met."""
        return self.rules.test_ids

    def chunks(self) -> Iterator[PairChunk]:
        """Blocks of pairs. Errors: `UserError` where one file ends before the other."""
        return self.files.chunks()

    def read(self, chunk: PairChunk) -> ReadRows:
        """The conversations of a chunk."""
        return self.rules.read(chunk.rows(), chunk.side)


def open_parallel_lines(config: ParallelLinesSource) -> ParallelRows:
    """Check the files and settle the shape of their rows.

    Errors: `UserError` for files that cannot be read, or hold no usable rows.
    """
    files = PairedFiles(
        questions=one_file(config.questions_path, key="questions_path"),
        answers=one_file(config.answers_path, key="answers_path"),
    )
    settled = settle_rules(
        config,
        [(str(files.questions), files.chunks())],
        what=files.questions.name,
        default=SHAPE,
    )
    return ParallelRows(
        files=files,
        rules=settled.rules,
        licence=config.licence,
        attribution=config.attribution,
    )
