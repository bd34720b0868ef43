"""Checks of form: that an answer is JSON, YAML, CSV, XML or a Markdown table as demanded.

As in `check_text`, each returns in words what is wrong, or nothing. One code fence around the
whole answer is passed by, since chat models put it there unasked; words before or after it are not.
"""

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from evals.metrics.fences import unfenced
from evals.metrics.strict_json import parse_json

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def json_object(
    text: str, *, keys: Mapping[str, str] | None = None, values: Mapping[str, Any] | None = None
) -> str:
    """A JSON object with exactly these keys and types, or exactly these values, and no text beside.

    keys: type names of JSON schema by key; values: JSON values by key, texts compared casefolded.
    """
    try:
        loaded = parse_json(unfenced(text))
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    return _mapping_fault(loaded, keys, values)


def json_array(text: str, *, values: Sequence[Any]) -> str:
    """A JSON array of exactly these values in this order, texts compared casefolded."""
    try:
        loaded = parse_json(unfenced(text))
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    return "" if _same(loaded, list(values)) else f"{loaded!r} instead of {list(values)!r}"[:160]


def yaml_mapping(
    text: str, *, keys: Mapping[str, str] | None = None, values: Mapping[str, Any] | None = None
) -> str:
    """A YAML mapping (block style or JSON's) with exactly these keys and types, or these values."""
    try:
        loaded = YAML(typ="safe", pure=True).load(unfenced(text))
    except (YAMLError, ValueError, RecursionError) as error:
        return f"no YAML: {str(error).splitlines()[0]}"
    return _mapping_fault(loaded, keys, values)


def csv_rows(text: str, *, rows: Sequence[Sequence[str]], separator: str = ",") -> str:
    """Comma-separated values (RFC 4180) with exactly these cells; blanks around cells pass."""
    reader = csv.reader(io.StringIO(unfenced(text)), delimiter=separator, strict=True)
    try:
        got = [[cell.strip() for cell in row] for row in reader if row]
    except csv.Error as error:
        return f"no CSV: {error}"
    return _rows_fault(got, rows)


def markdown_table(text: str, *, rows: Sequence[Sequence[str]]) -> str:
    """One Markdown table (GitHub's form) with exactly these cells, the header first.

    No text may stand beside it. Emphasis within cells is passed by.
    """
    found = [line.strip() for line in unfenced(text).splitlines() if line.strip()]
    cells = [[cell.strip(" *_`") for cell in line.strip("|").split("|")] for line in found]
    if len(found) < 2 or not all("|" in line for line in found):
        return "no Markdown table, or text beside it"
    if not all(re.fullmatch(r":?-+:?", cell) for cell in cells[1]):
        return "no line of dashes below the header"
    return _rows_fault([cells[0], *cells[2:]], rows)


def xml_element(text: str, *, root: str, children: Mapping[str, str]) -> str:
    """An XML element of this name that holds these elements, in this order, with these texts.

    A declaration in front of it is passed by; document types are refused.
    """
    bare = unfenced(text)
    if "<!DOCTYPE" in bare or "<!ENTITY" in bare:
        return "a document type was not asked for"
    try:
        # Entities, by which such text can do harm, need the document type refused above.
        element = ElementTree.fromstring(bare)  # noqa: S314
    except ElementTree.ParseError as error:
        return f"no XML: {error}"
    got = [(child.tag, (child.text or "").strip().casefold()) for child in element]
    expected = [(tag, value.casefold()) for tag, value in children.items()]
    if element.tag != root:
        return f"the element is <{element.tag}>, not <{root}>"
    return "" if got == expected else f"{got!r} instead of {expected!r}"[:160]


def _mapping_fault(
    loaded: object, keys: Mapping[str, str] | None, values: Mapping[str, Any] | None
) -> str:
    if not isinstance(loaded, dict):
        return f"{type(loaded).__name__}, not an object"
    expected = {*(keys or {}), *(values or {})}
    if set(loaded) != expected:
        return f"keys {sorted(map(str, loaded))} instead of {sorted(expected)}"
    for key, name in (keys or {}).items():
        if not _has_type(loaded[key], name):
            return f"`{key}` is {loaded[key]!r}, not of type {name}"[:160]
    for key, value in (values or {}).items():
        if not _same(loaded[key], value):
            return f"`{key}` is {loaded[key]!r} instead of {value!r}"[:160]
    return ""


def _has_type(value: object, name: str) -> bool:
    # A bool is an int to Python, and none to JSON.
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _same(got: object, expected: object) -> bool:
    if isinstance(got, str) and isinstance(expected, str):
        return got.strip().casefold() == expected.strip().casefold()
    if isinstance(got, list) and isinstance(expected, list):
        return len(got) == len(expected) and all(map(_same, got, expected))
    if isinstance(got, dict) and isinstance(expected, dict):
        return set(got) == set(expected) and all(_same(got[key], expected[key]) for key in got)
    return isinstance(got, bool) == isinstance(expected, bool) and got == expected


def _rows_fault(got: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> str:
    folded = [[cell.casefold() for cell in row] for row in got]
    if folded == [[cell.casefold() for cell in row] for row in rows]:
        return ""
    return f"{got!r} instead of {list(map(list, rows))!r}"[:200]
