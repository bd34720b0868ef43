"""A whole demo from prepared downloads to the verdict: time, training speed, peak memory.

    python -m benchmarks.demo [legal|medical|support]

Memory is the resident set of the command and its servers together, looked at four times a second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from configs.load import load_config
from data.load_source import load_source
from data.model_source import resolve_checkpoint

BUDGET_SECONDS = 12 * 60


def main() -> None:
    """Run the demo in a new run directory; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain", nargs="?", default="legal")
    domain = parser.parse_args().domain
    config_file = Path(f"configs/demo-{domain}.yaml")
    config = load_config(config_file)
    # Downloads are not what is measured.
    resolve_checkpoint(config.model)
    load_source(config.data.source)
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "tunery", "run", str(config_file), "--runs", runs]
        started = time.monotonic()
        peak_bytes = _watch(subprocess.Popen(command))
        seconds = time.monotonic() - started
        manifest = json.loads((Path(runs) / config.name / "manifest.json").read_text())["stages"]
    for stage, record in manifest.items():
        print(f"{stage}: {record['seconds']} s, {json.dumps(record['facts'])}")
    print(
        json.dumps(
            {
                "benchmark": f"demo-{domain}",
                "value": round(seconds, 1),
                "unit": "s",
                "against": f"budget of {BUDGET_SECONDS} s on two quiet cores",
                "ratio": round(seconds / BUDGET_SECONDS, 3),
                "tokens_per_second": manifest["train"]["facts"]["tokens_per_second"],
                "peak_resident_gib": round(peak_bytes / 2**30, 2),
                "verdict": manifest["evaluate"]["facts"]["verdict"],
            }
        )
    )


def _watch(process: subprocess.Popen[bytes]) -> int:
    """Wait for `process` and return the peak of its tree's resident memory in bytes."""
    root = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        resident = 0
        try:
            for member in [root, *root.children(recursive=True)]:
                try:
                    resident += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
        except psutil.NoSuchProcess:
            break
        peak = max(peak, resident)
        time.sleep(0.25)
    if process.wait():
        sys.exit(f"the demo failed with status {process.returncode}")
    return peak


if __name__ == "__main__":
    main()
