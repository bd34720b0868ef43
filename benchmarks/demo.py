"""A whole demo from prepared downloads to the verdict: time, training speed, peak memory.

    python -m benchmarks.demo [legal|medical|support]

Memory is the resident set of the command and its servers together, looked at four times a second.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.memory import run_watched
from configs.load import load_config
from data.models.model_source import resolve_checkpoint
from data.steps.preparation import open_sources

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
    for opened in open_sources(config):
        for chunk in opened.source.chunks():
            opened.source.read(chunk)
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "tunery", "run", str(config_file), "--runs", runs]
        seconds, peak_bytes = run_watched(command)
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


if __name__ == "__main__":
    main()
