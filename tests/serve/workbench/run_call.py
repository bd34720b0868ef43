"""The code to take home, run as its readers would run it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright._impl._driver import compute_driver_executable

TIMEOUT_S = 120


def run_call(kind: str, code: str, folder: Path, *, key: str = "none") -> str:
    """What the program prints, which gets the key from the environment alone.

    kind: of `serve.workbench.calls`. JavaScript is run by the Node.js that Playwright brings.
    """
    assert shutil.which("curl"), "these tests run curl: install it"
    [suffix, *command] = {
        "curl": [".sh", "bash", "-eu"],
        "openai": [".py", sys.executable, "-P"],
        "requests": [".py", sys.executable, "-P"],
        "javascript": [".mjs", str(Path(compute_driver_executable()[0]))],
    }[kind]
    program = folder / f"call{suffix}"
    program.write_text(code, encoding="utf-8")
    ended = subprocess.run(
        [*command, str(program)],
        env=os.environ | {"TUNERY_KEY": key, "PYTHONUTF8": "1", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()
