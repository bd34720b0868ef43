"""What recorded pairs say: how often the shadow agrees, how fast both are, what it refuses."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import orjson


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """The pairs of one route between the same two targets.

    outcomes: how often the shadow ended in which way; num_equal: of those with outcome `answered`;
    the rest are medians in milliseconds over answered pairs, None where there are none.
    """

    route: str
    main: str
    shadow: str
    outcomes: Counter[str]
    num_equal: int
    main_first_token_ms: float | None
    shadow_first_token_ms: float | None
    main_total_ms: float | None
    shadow_total_ms: float | None

    @property
    def share_equal(self) -> float | None:
        """Share of the answered pairs that say the same; None where none was answered."""
        answered = self.outcomes["answered"]
        return self.num_equal / answered if answered else None


def summarise_recordings(folder: Path) -> list[PairSummary]:
    """All pairs in the folder, by route and targets; lines that are no records are skipped.

    Raises `OSError` where a file cannot be read.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in _records(folder):
        key = (record["route"], record["main"]["target"], record["shadow"]["target"])
        groups.setdefault(key, []).append(record)
    return [_summary(key, groups[key]) for key in sorted(groups)]


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("????-??-??.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                yield record


def _summary(key: tuple[str, str, str], records: Sequence[dict[str, Any]]) -> PairSummary:
    route, main, shadow = key
    answered = [record for record in records if record["shadow"]["outcome"] == "answered"]

    def middle(side: str, time: str) -> float | None:
        times = [record[side][time] for record in answered if record[side][time] is not None]
        return median(times) if times else None

    return PairSummary(
        route=route,
        main=main,
        shadow=shadow,
        outcomes=Counter(record["shadow"]["outcome"] for record in records),
        num_equal=sum(record["equal"] is True for record in answered),
        main_first_token_ms=middle("main", "first_token_ms"),
        shadow_first_token_ms=middle("shadow", "first_token_ms"),
        main_total_ms=middle("main", "total_ms"),
        shadow_total_ms=middle("shadow", "total_ms"),
    )
