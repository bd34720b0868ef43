"""Four times as many clients as there are places: what those see who are let in.

    python -m benchmarks.overload [--model FILE.gguf] [--slots 2] [--waiting 2] [--seconds 60]

Capacity is slots and places to wait. As many clients as that ask one request after the other for
half of the time, then four times as many: who is refused (429) asks again after a tenth of a
second. Reported: the p99 of the whole answer's time for those let in against that at capacity, the
share refused, and the memory of the server and its engine before and after.
"""

import argparse
import json
import tempfile
from pathlib import Path

import psutil

from benchmarks.load import Address, Load, run_for
from benchmarks.serve import (
    START_TIMEOUT_S,
    build_bodies,
    demo_model,
    server_settings,
    without_engine_fields,
)
from serve.process import start_interface

OVERLOAD = 4
PAUSE_S = 0.1
MIB = 2**20


def main() -> None:
    """Print both loads; the last line is one JSON object."""
    arguments = _parse_arguments()
    settings = server_settings(
        arguments.model or demo_model(),
        num_slots=arguments.slots,
        max_waiting=arguments.waiting,
    )
    capacity = arguments.slots + arguments.waiting
    bodies = without_engine_fields(build_bodies(max_tokens=arguments.max_tokens, cache_prompt=True))
    with (
        tempfile.TemporaryDirectory() as folder,
        start_interface(
            settings, timeout_s=START_TIMEOUT_S, log=Path(folder) / "server.log"
        ) as server,
    ):
        loads: dict[int, Load] = {}
        memory = []
        for times, seconds in ((1, arguments.seconds / 2), (OVERLOAD, arguments.seconds)):
            loads[times] = run_for(
                Address(server.url),
                bodies,
                num_streams=capacity * times,
                seconds=seconds,
                pause_s=PAUSE_S,
            )
            memory.append(_resident_mib(server.pid))
            print(f"{capacity * times} clients: {_told(loads[times])}", flush=True)
    at_capacity, overloaded = loads[1], loads[OVERLOAD]
    statuses = {timing.status for timing in overloaded.timings}
    print(
        json.dumps(
            {
                "benchmark": "overload",
                "p99_ratio": round(overloaded.total_s(99) / at_capacity.total_s(99), 3),
                "throughput_ratio": round(
                    overloaded.requests_per_s / at_capacity.requests_per_s, 3
                ),
                "answered": len(overloaded.answered),
                "refused": len(overloaded.timings) - len(overloaded.answered),
                "statuses": sorted(statuses),
                "resident_mib": memory,
            }
        )
    )


def _told(load: Load) -> str:
    num_refused = len(load.timings) - len(load.answered)
    return (
        f"{len(load.answered)} answered ({load.requests_per_s:.2f}/s, "
        f"p50 {load.total_s(50):.2f} s, p99 {load.total_s(99):.2f} s), {num_refused} refused"
    )


def _resident_mib(pid: int) -> int:
    """Resident memory of a process and all below it."""
    server = psutil.Process(pid)
    processes = [server, *server.children(recursive=True)]
    return int(sum(process.memory_info().rss for process in processes) / MIB)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="GGUF file; the demo's own when absent")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--waiting", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the overload")
    parser.add_argument("--max-tokens", type=int, default=16)
    return parser.parse_args()


if __name__ == "__main__":
    main()
