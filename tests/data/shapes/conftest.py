"""Rows through a shape, as a source takes them."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from configs.data_schema import Shape
from data.checks import check_messages
from data.conversation import text_of
from data.shapes.build import build_converter
from data.shapes.columns import Turns

Convert = Callable[..., Turns]


@pytest.fixture
def convert() -> Convert:
    """`convert(row, kind=…, …)`: the row's turns, which pass the checks."""

    def through(row: dict[str, Any], **shape: object) -> Turns:
        turns = build_converter(TypeAdapter(Shape).validate_python(shape))(row)
        check_messages(turns.messages, turns.tools)
        return turns

    return through


@pytest.fixture
def texts(convert: Convert) -> Callable[..., list[tuple[str, str]]]:
    """`texts(row, kind=…, …)`: each turn's role and text."""

    def through(row: dict[str, Any], **shape: object) -> list[tuple[str, str]]:
        return [(turn["role"], text_of(turn)) for turn in convert(row, **shape).messages]

    return through
