"""The shortest complete configuration, which tests vary line by line."""

from pathlib import Path

MINIMAL = """\
name: minimal
description: The shortest complete configuration.
model:
  name: tiny
  licence: MIT
  source:
    kind: folder
    path: weights
data:
  source:
    kind: files
    path: rows.jsonl
train:
  num_steps: 3
evaluation:
  task: a task
"""


def write_config(folder: Path, *changes: tuple[str, str], name: str = "minimal.yaml") -> Path:
    """`MINIMAL` with each `(old, new)` replaced; `old` must stand there exactly once."""
    text = MINIMAL
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file
