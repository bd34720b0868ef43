"""The prepare stage on rows that a test makes, with the tiny model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from configs.load import load_config
from configs.schema import RunConfig
from data.prepare import prepare
from data.splits import side_share
from data.steps.read_rows import group_hash
from tests.configs.minimal import write_config

SIDES = ("train", "validation", "test")


class PrepareRows:
    """The prepare stage on lines of JSON, with the tiny model; `folder` is what it writes."""

    def __init__(self, place: Path, checkpoint: Path) -> None:
        self.place = place
        self.checkpoint = checkpoint
        self.folder = place / "run" / "data"
        self.folder.parent.mkdir(exist_ok=True)

    def config(self, *, max_length: int = 512, **data: object) -> RunConfig:
        file = write_config(
            self.place,
            ("path: weights", f"path: {self.checkpoint}\n  max_length: {max_length}"),
        )
        settings = {"test_fraction": 0.3, "validation_fraction": 0.3} | data
        config = load_config(file)
        return config.model_copy(update={"data": config.data.model_copy(update=settings)})

    def __call__(
        self, lines: Sequence[object], *, max_length: int = 512, **data: object
    ) -> dict[str, Any]:
        text = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        (self.place / "rows.jsonl").write_bytes(b"\n".join(text) + b"\n")
        return prepare(self.config(max_length=max_length, **data), self.folder)

    def rows(self, side: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.folder / f"{side}.parquet").to_pylist()
        return [row | {"messages": json.loads(row["messages"])} for row in rows]

    def all_rows(self) -> list[dict[str, Any]]:
        return [row for side in SIDES for row in self.rows(side)]

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").open()]

    def rejects(self) -> list[dict[str, str]]:
        return [
            {"where": line["where"], "reason": line["reason"]} for line in self.lines("rejects")
        ]

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return facts


def questions(count: int, **fields: object) -> list[dict[str, object]]:
    return [chat(f"Which number is {n}?", f"The number is {n}.", **fields) for n in range(count)]


def chat(*contents: str, **fields: object) -> dict[str, object]:
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]
    return {"messages": turns, **fields}


def group_on(side: str, config: RunConfig) -> str:
    """The name of a group that the configured fractions put on `side`."""
    for number in range(1000):
        key = np.array([group_hash(f"g{number}", 0)], np.uint64)
        if side_share(key, "test")[0] < config.data.test_fraction:
            found = "test"
        elif side_share(key, "validate")[0] < config.data.validation_fraction:
            found = "validation"
        else:
            found = "train"
        if found == side:
            return f"g{number}"
    raise AssertionError(side)
