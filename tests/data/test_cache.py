import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import UserError
from data.cache import cache_folder, disk_error, new_folder

ROOT = Path(__file__).parents[2]
# Writes past the file size that the kernel allows, which is what a full disk looks like.
WRITE_TOO_MUCH = """
import resource, signal, sys
from pathlib import Path
from configs.errors import UserError
from data.cache import new_folder

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with new_folder(Path(sys.argv[1])) as folder:
        (folder / "small").write_bytes(b"x" * 4096)
        (folder / "large").write_bytes(b"x" * 4097)
except UserError as error:
    print(error)
"""
# Is killed while it fills its folder.
FILL_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from data.cache import new_folder

with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("filling", flush=True)
    time.sleep(600)
"""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A finished folder from before."""
    folder = tmp_path / "model"
    with new_folder(folder) as partial:
        (partial / "weights").write_text("old")
    return folder


def test_the_folder_takes_its_name_when_the_block_succeeds(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "model"
    with new_folder(final) as partial:
        assert partial.parent == final.parent
        assert not final.exists()
        (partial / "sub").mkdir()
        (partial / "sub" / "weights").write_text("new")
    assert (final / "sub" / "weights").read_text() == "new"
    assert names(final.parent) == ["model"]


def test_the_old_folder_is_replaced_whole(old: Path) -> None:
    with new_folder(old) as partial:
        assert names(partial) == []
        (partial / "config").write_text("new")
        assert (old / "weights").read_text() == "old"
    assert names(old) == ["config"]
    assert names(old.parent) == ["model"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=repr)
def test_the_old_folder_stays_when_the_block_fails(old: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), new_folder(old) as partial:
        (partial / "weights").write_text("half")
        raise error
    assert (old / "weights").read_text() == "old"
    assert names(old.parent) == ["model"]


def test_a_killed_block_leaves_the_old_folder_and_the_next_one_cleans_up(old: Path) -> None:
    command = [sys.executable, "-c", FILL_UNTIL_KILLED, str(old)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "filling\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert (old / "weights").read_text() == "old"
    assert names(old.parent) == [".model.partial", "model"]
    with new_folder(old) as partial:
        assert names(partial) == []
        (partial / "weights").write_text("new")
    assert (old / "weights").read_text() == "new"
    assert names(old.parent) == ["model"]


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path, old: Path) -> None:
    for final in (tmp_path / "other", old):
        result = subprocess.run(
            [sys.executable, "-c", WRITE_TOO_MUCH, str(final)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.splitlines() == [
            "cannot write: File too large",
            f"  where: {final}",
            "  to do: free some disk space or check the permissions; nothing half-written was kept",
        ]
    assert names(tmp_path) == ["model"]
    assert (old / "weights").read_text() == "old"


def test_other_faults_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "model") as partial:
        (partial / "nowhere" / "file").write_text("x")
    assert names(tmp_path) == []


def test_disk_error_without_the_systems_word_for_it(tmp_path: Path) -> None:
    error = disk_error(OSError("Error writing bytes"), tmp_path)
    assert isinstance(error, UserError)
    assert error.what == "cannot write: Error writing bytes"


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TUNERY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tunery"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tunery"
    monkeypatch.setenv("TUNERY_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("TUNERY_CACHE", os.path.relpath(tmp_path / "relative"))
    assert cache_folder() == tmp_path / "relative"


def test_two_processes_that_make_one_folder_take_turns(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from data.cache import new_folder, only_one\n"
        "final = Path(sys.argv[1])\n"
        "with only_one(final):\n"
        "    made = not final.exists()\n"
        "    if made:\n"
        "        with new_folder(final) as partial:\n"
        "            time.sleep(0.5); (partial / 'whole').touch()\n"
        "print(made, (final / 'whole').exists())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "made")]
    environment = os.environ | {"TUNERY_CACHE": str(tmp_path / "cache")}
    racers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = sorted(racer.communicate()[0].strip() for racer in racers)
    assert told == ["False True", "True True"]
