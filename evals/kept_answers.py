"""Every answer of a host in one file, as soon as it arrives: the copy from which a killed, enlarged
or rescored evaluation goes on without asking again.

The logs of inspect cannot serve for that: they belong to one exact set of questions. Its cache of
answers forgets how long they took, loses refusals and takes a server's new port for another model.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from inspect_ai.model import ModelOutput

from configs.errors import UserError
from data.cache import WRITE_ERRORS, disk_error
from evals.asked import Asked

FILE_NAME = "answers.jsonl"


def answer_key(source: str, asked: Asked, request: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of all that an answer depends on.

    source: the target's revision, or its address; request: the body that is sent. The question's id
    is part of it, because different questions are answered independently, and so is the epoch; the
    task's name and the metric are not.
    """
    told = [source, asked.id, asked.epoch, request]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass
class KeptAnswers:
    """The answers in `file`; each line is whole or, after a kill, the last one and cut off."""

    file: Path
    _handle: BinaryIO
    _outputs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def find(self, key: str) -> ModelOutput | None:
        """The answer under `key`, with its usage and its time in seconds, if there is one."""
        found = self._outputs.get(key)
        return None if found is None else ModelOutput.model_validate(found)

    def add(self, key: str, asked: Asked, output: ModelOutput) -> None:
        """Keep `output`; when this returns, it outlives the process.

        Errors: `UserError` where the disk is full.
        """
        found = output.model_dump(mode="json", exclude_none=True)
        line = json.dumps({"key": key, **asked._asdict(), "output": found}, ensure_ascii=False)
        data = line.encode("utf-8", "surrogatepass") + b"\n"
        try:
            # Unbuffered, hence one write; a full disk may take a part of it.
            if self._handle.write(data) < len(data):
                self._handle.write(b"\n")
        except OSError as error:
            if error.errno in WRITE_ERRORS:
                raise disk_error(error, self.file) from error
            raise
        self._outputs[key] = found


@contextmanager
def open_answers(folder: Path) -> Iterator[KeptAnswers]:
    """The kept answers of `folder`, which is made where it is missing.

    Errors: `UserError` where a line other than the last is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE_NAME
    with file.open("a+b", buffering=0) as handle:
        handle.seek(0)
        data = handle.readall()
        whole = data[: data.rfind(b"\n") + 1]
        handle.truncate(len(whole))
        outputs = {}
        for number, line in enumerate(whole.splitlines(), start=1):
            key, output = _read_line(line, where=f"{file}, line {number}")
            outputs[key] = output
        yield KeptAnswers(file, handle, outputs)


def _read_line(line: bytes, *, where: str) -> tuple[str, dict[str, Any]]:
    try:
        record = json.loads(line.decode("utf-8", "surrogatepass"))
        return record["key"], record["output"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            "a kept answer is damaged",
            where=where,
            remedy="remove this line: its question is then asked again",
        ) from error
