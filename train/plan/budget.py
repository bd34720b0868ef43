"""The memory to plan for: what was asked for, else what this machine has."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from configs.errors import UserError
from train.plan.advice import Device

# A card that is sold as one of 24 GB has 24 GiB.
UNITS = {"": 1.0, "g": 1.0, "gb": 1.0, "gib": 1.0, "m": 1 / 1024, "mb": 1 / 1024, "mib": 1 / 1024}
MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
GIB = 2**30
DRIVER_PATIENCE = 1.0
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Budget(NamedTuple):
    """GiB of a device's memory, and in words where the number comes from."""

    gib: float
    device: Device
    told: str


def parse_memory(text: str) -> float:
    """GiB of "24GiB", "24 GB", "24564MiB" or "24", units in powers of two; else a `UserError`."""
    match = MEMORY.fullmatch(text)
    unit = UNITS.get(match[2].lower()) if match else None
    gib = float(match[1]) * unit if match and unit else 0.0
    if gib <= 0:
        raise UserError(
            f"not an amount of memory: {text!r}",
            where="--gpu",
            remedy='give the card\'s memory as "24GiB", "24GB" or "24564MiB"',
        )
    return gib


def find_budget(gpu: str | None) -> Budget:
    """The card of `gpu`'s memory; without it the first card here, else this machine's memory."""
    if gpu is not None:
        return Budget(parse_memory(gpu), "cuda", "as asked for")
    card = _ask_driver()
    if card is not None:
        return card
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    if limit.isdigit():
        host = min(host, int(limit))
    return Budget(host / GIB, "cpu", "this machine, which has no NVIDIA card")


def _ask_driver() -> Budget | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, check=True, timeout=DRIVER_PATIENCE
        )
        name, _, mebibytes = answer.stdout.strip().rpartition(",")
        return Budget(float(mebibytes) / 1024, "cuda", name.strip())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
