"""What asking costs beside the host's own time, and what a kill costs.

    python -m benchmarks.evaluate [--samples 1000] [--at-once 64] [--latencies 0.2 1 2] [--kills 10]

The host is a process of its own (`benchmarks.evaluate_host`): a fixed latency, each 20th request
429 with Retry-After 1. Its own log gives the ideal time: what it spent on answers and what the
refused ones had to wait, over the connections. `asking` is from the first request to the last
answer, by the host's clock; `total` is the whole process with its start, imports, judging and logs.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.evaluate_host import CHAPTERS, RETRY_AFTER_S, RunningHost, Seen, slow_host
from evals.asking import ask
from evals.kept_answers import FILE_NAME
from evals.targets import Target
from evals.task import EvaluationTask, Question
from evals.tasks import build_inspect_task

POLL_S = 0.05


def main() -> None:
    """Print one line a measurement, and all of them as JSON at the end."""
    arguments = _parse_arguments()
    if arguments.ask is not None:
        _ask(arguments.ask, arguments.folder, arguments.samples, arguments.at_once)
        return
    results: dict[str, object] = {"samples": arguments.samples, "at_once": arguments.at_once}
    with slow_host() as host, tempfile.TemporaryDirectory() as scratch:
        for latency_s in arguments.latencies:
            host.change(latency_s=latency_s, hold_after=None)
            folder = Path(scratch) / f"plain-{latency_s}"
            results[f"latency {latency_s} s"] = _time(host, folder, arguments)
        host.change(latency_s=0.2)
        results["again"] = _time(host, folder, arguments)
        for held in (True, False):
            name = "killed while nothing is in flight" if held else "killed at full load"
            results[name] = _kill(host, Path(scratch) / name, arguments, held=held)
    print(json.dumps({"benchmark": "evaluate", **results}))


def _time(host: RunningHost, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    started = time.perf_counter()
    output = subprocess.run(
        _command(host, folder, arguments), check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    total_s = time.perf_counter() - started
    seen = host.seen()
    found = {
        "total_s": total_s,
        **json.loads(output),
        "asking_s": seen.last_s - seen.first_s,
        "ideal_s": ideal_s(seen, arguments.at_once),
        "requests": seen.num_requests,
        "busy": seen.num_busy,
        "most_at_once": seen.most_at_once,
        "asked_twice": seen.num_repeated,
    }
    if seen.num_requests:
        found["asking_ratio"] = found["asking_s"] / found["ideal_s"]
        found["total_ratio"] = total_s / found["ideal_s"]
    rounded = {name: round(value, 3) for name, value in found.items()}
    print(f"{folder.name}: {rounded}", flush=True)
    return rounded


def ideal_s(seen: Seen, at_once: int) -> float:
    """Seconds that `at_once` connections need if none is ever idle but for a wait it was told."""
    return (seen.service_s + seen.num_busy * RETRY_AFTER_S) / at_once


def _kill(
    host: RunningHost, folder: Path, arguments: argparse.Namespace, *, held: bool
) -> dict[str, int]:
    """Kill -9 at evenly spread points, then run to the end. held: the host lets nothing be in
    flight then, as all that was answered has been kept.
    """
    host.change(hold_after=None, latency_s=0.2)
    step = arguments.samples // (arguments.kills + 1)
    for point in range(step, step * arguments.kills + 1, step):
        if held:
            host.hold_after(point)
        process = subprocess.Popen(_command(host, folder, arguments), stdout=subprocess.DEVNULL)
        kept = folder / FILE_NAME
        while host.seen().num_answers < point or (held and _num_lines(kept) < point):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(POLL_S)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        while host.num_in_flight():
            time.sleep(POLL_S)
        host.release()
    subprocess.run(_command(host, folder, arguments), check=True, stdout=subprocess.DEVNULL)
    seen = host.seen()
    found = {
        "kills": arguments.kills,
        "questions": len(seen.answered),
        "answers": seen.num_answers,
        "asked_twice": seen.num_repeated,
        "kept": _num_lines(kept),
    }
    print(f"{folder.name}: {found}", flush=True)
    return found


def _num_lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _command(host: RunningHost, folder: Path, arguments: argparse.Namespace) -> list[str]:
    return [
        *(sys.executable, "-m", "benchmarks.evaluate", "--ask", host.base_url),
        *("--folder", str(folder), "--samples", str(arguments.samples)),
        *("--at-once", str(arguments.at_once)),
    ]


def _ask(base_url: str, folder: Path, num_samples: int, at_once: int) -> None:
    """The process that is timed and killed."""
    imported_s = time.process_time()
    answers = ask(
        Target("the host", base_url, "model", revision="one"),
        [build_inspect_task(_build_task(num_samples))],
        log_dir=folder,
        max_connections=at_once,
    )
    assert len(answers["chapters"]) == num_samples, "an answer is missing"
    print(json.dumps({"import_cpu_s": imported_s, "cpu_s": time.process_time()}))


def _build_task(num_samples: int) -> EvaluationTask:
    questions = tuple(
        Question(
            id=f"icd/{n}",
            messages=(
                {
                    "role": "user",
                    "content": f"Diagnosis: term {n}. Which ICD-10-CM chapter does it belong to?",
                },
            ),
            reference={"role": "assistant", "content": CHAPTERS[n % len(CHAPTERS)]},
            cluster=f"icd/{n}",
        )
        for n in range(num_samples)
    )
    return EvaluationTask(
        name="chapters",
        role="primary",
        metric="normalized_match",
        questions=questions,
        max_tokens=16,
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--latencies", type=float, nargs="+", default=[0.2, 1.0, 2.0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ask", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
