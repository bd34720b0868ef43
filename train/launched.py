"""One of several processes that train together; argument: the folder with the job and its outcome.

Started by `accelerate launch`, see `train.launch`.
"""

import logging
import sys
from pathlib import Path

import torch.distributed as dist
from rich.console import Console

from configs.errors import Interrupted, UserError
from configs.telemetry import disable_telemetry
from train.adapter import train_job
from train.job import TrainJob, write_outcome
from train.launch import JOB_FILE, OUTCOME_FILE
from train.processes import is_first, join


def main(folder: Path) -> None:
    """Train the folder's job; the first process draws the bar and leaves the outcome."""
    disable_telemetry()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    job = TrainJob.from_json((folder / JOB_FILE).read_text(encoding="utf-8"))
    join()
    if not run(job, folder / OUTCOME_FILE, Console(highlight=False, quiet=not is_first())):
        sys.exit(1)
    dist.destroy_process_group()


def run(job: TrainJob, outcome: Path, console: Console) -> bool:
    """Train as one of the processes that have found each other; returns whether it came to its end.

    The others may wait for one that did not: whoever started them has to end them.
    """
    try:
        training = train_job(job, console)
    except (UserError, Interrupted) as error:
        # What one process runs into alone ends the others too: any of them may tell.
        write_outcome(outcome, error)
        return False
    if is_first():
        write_outcome(outcome, training)
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
