"""A Ray cluster as the stages use it: reached or started, and asked to run a function.

Ray is an extra: it is imported by those alone who name a cluster.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from configs.cores import usable_cores
from configs.errors import Interrupted, UserError
from configs.telemetry import disable_telemetry

# ruff: noqa: PLC0415

Result = TypeVar("Result")
LOCAL = "local"
MAX_RETRIES = 3
"""Times that a function is run again whose worker died; its own errors are never tried again."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a function needs of the node that it runs on."""

    num_cpus: float = 1
    num_gpus: float = 0


@contextmanager
def open_cluster(address: str) -> Iterator[None]:
    """Reach the cluster at `address` for the length of a block.

    address: `local` starts one on this machine, which ends with the block; `auto` finds the one
    that this machine belongs to; `host:port` and `ray://host:port` name one. Errors: `UserError`
    where Ray is not installed, or nothing answers there.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "Ray is not installed",
            where="--ray",
            remedy='pip install "tunery[ray]", or leave --ray out',
        ) from error
    disable_telemetry()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray else hands every process one thread, whatever its environment says.
    environment = {name: value for name, value in os.environ.items() if _is_handed_on(name)}
    is_local = address == LOCAL
    options: dict[str, Any] = {"num_cpus": usable_cores()} if is_local else {"address": address}
    try:
        ray.init(
            **options,
            include_dashboard=False if is_local else None,
            runtime_env={"env_vars": environment},
            logging_level=logging.WARNING,
            configure_logging=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster can be reached: {error}",
            where=f"--ray {address}",
            remedy="start one with `ray start --head`, or give --ray local",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def run_remotely(
    function: Callable[..., Result], *arguments: object, resources: Resources | None = None
) -> Result:
    """`function(*arguments)` on a node that has the resources; again where its worker dies.

    Both have to be picklable. Errors: those of `function`, `UserError` and `Interrupted` as they
    are; a `UserError` where workers die more than `MAX_RETRIES` times.
    """
    import ray

    needs = resources or Resources()
    task = ray.remote(num_cpus=needs.num_cpus, num_gpus=needs.num_gpus, max_retries=MAX_RETRIES)(
        _attempt
    )
    reference = task.remote(function, arguments)
    try:
        kind, value = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise UserError(
            f"its worker died {MAX_RETRIES + 1} times, most likely for want of memory",
            where=getattr(function, "__name__", str(function)),
            remedy="give the nodes more memory; the same command goes on where this one stopped",
        ) from error
    except KeyboardInterrupt:
        ray.cancel(reference, force=True)
        raise
    if kind == "interrupted":
        raise Interrupted(value)
    if kind == "refused":
        raise value
    result: Result = value
    return result


def has_gpus() -> bool:
    """Whether any node of the cluster has a card."""
    import ray

    return bool(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]


def _attempt(
    function: Callable[..., Any], arguments: tuple[object, ...]
) -> tuple[Literal["done", "refused", "interrupted"], Any]:
    """What came of it; Ray would wrap errors, and take an interruption for a dead worker."""
    try:
        return "done", function(*arguments)
    except UserError as error:
        return "refused", error
    except Interrupted as error:
        return "interrupted", str(error)


def _is_handed_on(name: str) -> bool:
    """Whether workers get a variable of the command's environment."""
    return name.startswith(("TUNERY_", "OMP_", "GOMP_", "HF_"))
