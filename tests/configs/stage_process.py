"""A process that works on a run and is killed by a test: `python -m … ACTION RUNS_FOLDER`."""

import sys
import time
from pathlib import Path
from typing import Any

from configs.load import load_config
from configs.run_directory import RunDirectory, StageRecord, create_run, run_stage

SETTINGS = {"rows": 3}


def say(word: str) -> None:
    print(word, flush=True)


def work_until_killed(run: RunDirectory) -> None:
    def work(resume: bool) -> dict[str, Any]:
        (run.path / "halfway.txt").write_text(f"resume={resume}")
        say("working")
        time.sleep(600)
        raise AssertionError("nobody killed this process")

    with run.lock():
        run_stage(run, "prepare", settings=SETTINGS, after=(), outputs=["data"], seed=1, work=work)


def write_records_until_killed(run: RunDirectory) -> None:
    number = 0
    while True:
        # Long enough that writing takes many system calls, of changing length.
        facts = {"number": number, "filler": "x" * (200_000 + 997 * (number % 50))}
        run.write_record("prepare", StageRecord(state="running", facts=facts))
        if not number:
            say("writing")
        number += 1


if __name__ == "__main__":
    action, folder = sys.argv[1], Path(sys.argv[2])
    directory = create_run(load_config(folder / "minimal.yaml"), folder / "runs")
    {"work": work_until_killed, "write": write_records_until_killed}[action](directory)
