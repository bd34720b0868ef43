"""The processes that train together: which one this is, and what they have to agree on.

Alone, everything here answers as for one process, and costs nothing.
"""

import os
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState


def join() -> None:
    """Find the other processes that the launcher's environment names, before anything is agreed on.

    accelerate calls the CPU `cpu:0`, and has optimizer states restored to it; torch knows no CPU of
    that name.
    """
    PartialState()
    torch.serialization.register_package(0, lambda _: None, _restore_to_numbered_cpu)


def num_processes() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that draws, logs and writes what all have in common."""
    return not dist.is_initialized() or dist.get_rank() == 0


def local_rank() -> int:
    """Number of this process on its host, which is that of its card."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def wait_for_all() -> None:
    """Return when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def any_of_all(flag: bool) -> bool:
    """Whether any process says so: all get one answer, and none goes on where another stops."""
    return sum_of_all(int(flag)) > 0


def sum_of_all(count: int) -> int:
    """A count summed over the processes."""
    if not dist.is_initialized():
        return count
    on_card = dist.get_backend() == "nccl"
    device = torch.device("cuda", local_rank()) if on_card else torch.device("cpu")
    total = torch.tensor(count, dtype=torch.int64, device=device)
    dist.all_reduce(total)
    return int(total)


def _restore_to_numbered_cpu(storage: Any, location: str) -> Any:  # noqa: ANN401 - torch's own
    return storage if location.startswith("cpu:") else None
