from pathlib import Path

import pytest

from serve.engines.num_threads import cpu_quota, default_num_threads


@pytest.mark.parametrize(("cores", "threads"), [({0}, 1), ({0, 1}, 1), ({2, 3, 5, 7}, 3)])
def test_threads_leave_a_core_to_others(
    cores: set[int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: cores)
    monkeypatch.setattr("serve.engines.num_threads.cpu_quota", lambda: None)
    assert default_num_threads() == threads


@pytest.mark.parametrize(("quota", "threads"), [(0.5, 1), (2.0, 1), (3.9, 2), (64.0, 7)])
def test_threads_stay_within_the_quota(
    quota: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("serve.engines.num_threads.cpu_quota", lambda: quota)
    assert default_num_threads() == threads


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {}, None),
        # A parent's is less than the own one.
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "300000 100000"}, 1.0),
        # In a container the group's path is the host's.
        ("0::/docker/1f", {"cpu.max": "50000 100000"}, 0.5),
        ("4:cpu,cpuacct:/a\n3:memory:/b", {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "400000\n",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            "memory/b/cpu.cfs_quota_us": "100000\n",
            "memory/b/cpu.cfs_period_us": "100000\n",
        }, 4.0),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)  # fmt: skip
def test_the_least_quota_of_the_control_groups_counts(
    own: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    for name, content in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (tmp_path / "own").write_text(own + "\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == quota
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "none") in (quota, None)
