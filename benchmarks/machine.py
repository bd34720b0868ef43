"""What a benchmark's figures were taken on, told the same way in every result."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from typing import TypedDict


class Card(TypedDict):
    """A graphics card and its driver's version."""

    name: str
    driver: str


class Machine(TypedDict):
    """platform: system and kind of processor; load_average: over the minute before; card: the first
    NVIDIA card, None where there is none; versions: of the packages that the figures hang on."""

    platform: str
    cpu_count: int | None
    load_average: float
    card: Card | None
    python: str
    versions: dict[str, str]


def describe_machine(packages: Sequence[str] = ()) -> Machine:
    """This machine as it is now. packages: distribution names; one that is missing is an error."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "card": _first_card(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def name_machine(machine: Machine) -> str:
    """One line for readers: what stays the same from run to run."""
    parts = [machine["platform"], f"{machine['cpu_count']} cores"]
    if machine["card"] is not None:
        parts.append(f"{machine['card']['name']} (driver {machine['card']['driver']})")
    return ", ".join([*parts, f"Python {machine['python']}"])


def _first_card() -> Card | None:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, driver = listed.stdout.partition("\n")[0].rpartition(", ")
    return {"name": name, "driver": driver} if name else None
