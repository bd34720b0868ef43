import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from serve.socket_folder import make_socket_folder


@pytest.mark.parametrize("depth", [0, 5])
def test_a_socket_fits_whatever_the_temporary_folder_is(
    depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path.joinpath(*["a" * 30] * depth)
    usual.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(usual))
    folder = make_socket_folder()
    try:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "llama.sock"))
    finally:
        shutil.rmtree(folder)
