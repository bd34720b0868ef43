"""What the tests of the sources share: to open one, and to read all of it as the stage does."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

from configs.data_schema import FilesSource
from data.conversation import Conversation, ReadRows, Reject, Source, text_of
from data.load_source import open_source

MESSAGES = {"kind": "messages"}
QUESTION_ANSWER = {"kind": "question_answer", "question": "q", "answer": "a"}


def read_all(source: Source) -> ReadRows:
    """All rows of a source, with source and chunks pickled on their way as between processes."""
    conversations: list[Conversation] = []
    rejects: list[Reject] = []
    dropped: Counter[str] = Counter()
    num_read = 0
    sent: Source = pickle.loads(pickle.dumps(source))
    for chunk in source.chunks():
        rows = sent.read(pickle.loads(pickle.dumps(chunk)))
        conversations += rows.conversations
        rejects += rows.rejects
        dropped += rows.dropped
        num_read += rows.num_read
    assert num_read == len(conversations) + len(rejects) + dropped.total()
    return ReadRows(
        conversations=conversations, num_read=num_read, rejects=rejects, dropped=dropped
    )


def files_source(path: Path | list[Path], **options: Any) -> FilesSource:  # noqa: ANN401
    """A source of files; unless another shape is given, questions in `q` and answers in `a`."""
    given = {"kind": "files", "path": path, "shape": QUESTION_ANSWER} | options
    return FilesSource.model_validate(given)


def read_files(path: Path | list[Path], **options: Any) -> ReadRows:  # noqa: ANN401
    """All rows of `files_source(path, …)`."""
    return read_all(open_source(files_source(path, **options)))


def asked(rows: ReadRows) -> list[str]:
    """What each row asks."""
    return [text_of(row.messages[0]) for row in rows.conversations]
