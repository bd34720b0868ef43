"""What the data stage found out about evaluation rows: which belong together, which are known."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from scipy.cluster.hierarchy import DisjointSet

from configs.errors import UserError
from data.conversation import Conversation

OWN_ROWS = "test rows"


class Credit(NamedTuple):
    """Of rows, for reports."""

    licence: str
    attribution: str


def clusters_of(rows: Sequence[Conversation], data_folder: Path) -> list[str]:
    """For each row the name of what it belongs to: the id of the first row of it, here.

    Rows belong together that share a group or that clusters.jsonl calls equal or nearly so, however
    many steps away. Errors: `UserError` where that file cannot be read.
    """
    by_group: dict[str, list[int]] = defaultdict(list)
    by_place: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_place[row.where].append(number)
        if row.group:
            by_group[row.group].append(number)
    joined = DisjointSet(range(len(rows)))
    linked = [*by_group.values()]
    for line in _lines(data_folder / "clusters.jsonl"):
        linked.append([n for place in line["rows"] if place in by_place for n in by_place[place]])
    for numbers in linked:
        for number in numbers[1:]:
            joined.merge(numbers[0], number)
    first: dict[int, int] = {}
    for number in range(len(rows)):
        first.setdefault(joined[number], number)
    return [rows[first[joined[number]]].id for number in range(len(rows))]


def known_places(label: str, places: Collection[str], data_folder: Path) -> set[str]:
    """Those of `places` whose rows the rows to train on give away, by contamination.jsonl.

    label: the set's in that file. A row that was left out as equal to another is as known as that.
    Errors: `UserError` where the file cannot be read, or the set was never compared.
    """
    _check_compared(label, data_folder)
    known: dict[str, set[str]] = defaultdict(set)
    for line in _lines(data_folder / "contamination.jsonl"):
        if line["known"]:
            known[line["set"]].add(line["test"])
    found = known[label].intersection(places)
    everywhere = set().union(*known.values())
    for line in _lines(data_folder / "clusters.jsonl"):
        # The kept row comes first; it may be one of another set.
        if line["kind"] == "exact" and line["rows"][0] in everywhere:
            found.update(place for place in line["rows"] if place in places)
    return found


def licence_of(label: str, data_folder: Path) -> Credit:
    """Licence and attribution by a set's label, or of all rows' sources together for `OWN_ROWS`."""
    sources = [
        one
        for one in _facts(data_folder)["sources"]
        if one["label"] == label or (label == OWN_ROWS and not one["is_evaluation_task"])
    ]
    return Credit(
        "; ".join(dict.fromkeys(one["licence"] for one in sources)),
        "; ".join(dict.fromkeys(one["attribution"] for one in sources if one["attribution"])),
    )


def _check_compared(label: str, data_folder: Path) -> None:
    if label != OWN_ROWS and label not in [one["label"] for one in _facts(data_folder)["sources"]]:
        raise UserError(
            f"the rows of {label} were never compared with those to train on",
            where=data_folder,
            remedy="run `tunery prepare`, and what follows it, again",
        )


def _facts(data_folder: Path) -> dict[str, Any]:
    file = data_folder / "facts.json"
    try:
        facts: dict[str, Any] = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise _unreadable(file, error) from error
    return facts


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open("rb") as handle:
            for line in handle:
                yield orjson.loads(line)
    except (OSError, orjson.JSONDecodeError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot read what was found out about the rows: {error}",
        where=file,
        remedy="run `tunery prepare` again: it writes this file",
    )
