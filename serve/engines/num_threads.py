"""How many threads may compute on this machine, or in this container."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def default_num_threads() -> int:
    """One thread fewer than the cores this process may use, at least 1.

    llama.cpp's threads spin while they wait for each other: with one per core, a single other busy
    process brings generation to a halt. Under a container's quota, threads beyond it are stopped in
    the middle of their work, which is the same.
    """
    if hasattr(os, "sched_getaffinity"):
        num_cores = len(os.sched_getaffinity(0))
    else:
        num_cores = os.cpu_count() or 1
    quota = cpu_quota()
    if quota is not None:
        num_cores = min(num_cores, int(quota))
    return max(1, num_cores - 1)


def cpu_quota(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> float | None:
    """Cores' worth of time that the kernel grants this process, None where it sets no limit.

    The least of the own control group's and its parents' quotas: `cpu.max` of version 2,
    `cpu.cfs_quota_us` of version 1. cgroups: where they are mounted; own: the file that says which
    groups this process is in.
    """
    quotas = [
        quota
        for folder in _group_folders(cgroups, own)
        for quota in (_read_v2(folder), _read_v1(folder))
        if quota is not None
    ]
    return min(quotas, default=None)


def _group_folders(cgroups: Path, own: Path) -> list[Path]:
    """Folders of the process's groups and of their parents; a container sees only the topmost."""
    folders = [cgroups, cgroups / "cpu", cgroups / "cpu,cpuacct"]
    for line in _read(own).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = cgroups / controllers if controllers else cgroups
        place = mount / group.strip("/")
        while place != mount:
            folders.append(place)
            place = place.parent
        folders.append(mount)
    return folders


def _read_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _read_v1(folder: Path) -> float | None:
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    return _ratio(quota, _read(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    """None for no limit: `max`, or -1."""
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
