"""Merging an adapter: time against `cp` and against peft's own merge, memory by model size.

The checkpoints have the layer widths of Mistral Small 3.1 24B, a smaller vocabulary and as many
layers as the size allows, with random weights and a random adapter of rank 32. All are read from
the page cache and flushed to disk; imports are not counted. The last line of the output is JSON.

    python -m benchmarks.merge [--sizes 2 4 8] [--rounds 3] [--folder DIR]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, MistralConfig

from benchmarks.machine import describe_machine
from benchmarks.memory import run_watched
from data.cache import new_folder
from train.merging.adapters import WeightedAdapter
from train.merging.merged_weights import MergedWeights
from train.merging.write import write_merged
from train.weight_files import ShardWriter, list_shards

RANK = 32
LARGEST_FP32_GIB = 32768 * 5120 * 4 / 2**30
# Gigabytes of a checkpoint and the layers that it has then, of 1.11 GB each.
LAYERS = {2: 1, 4: 3, 8: 7}


def main() -> None:
    """Build the checkpoints, measure each in processes of its own, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8], choices=LAYERS)
    parser.add_argument("--peft-size", type=int, default=4, choices=LAYERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="where the checkpoints are built")
    parser.add_argument("--only", choices=WORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        WORKS[options.only](options.folder, options.threads)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = measure(Path(folder), options)
    print(json.dumps(results))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures; seconds are medians over the rounds, which take turns."""
    machine = describe_machine(["torch", "transformers", "peft"])
    results: dict[str, Any] = {"machine": machine, "threads": options.threads}
    for size in options.sizes:
        run = folder / f"{size}gb"
        build_checkpoint(run / "base", num_layers=LAYERS[size])
        build_adapter(run / "base", run / "adapter")
        works = ["copy", "tunery", *(["peft"] if size == options.peft_size else [])]
        rounds = [
            {work: run_work(work, run, options.threads) for work in works}
            for _ in range(options.rounds)
        ]
        gigabytes = sum(shard.stat().st_size for shard in list_shards(run / "base")) / 1e9
        found: dict[str, Any] = {"gigabytes": round(gigabytes, 2)}
        for work in works:
            seconds = statistics.median(measured[work]["seconds"] for measured in rounds)
            peak = max(measured[work]["peak_gib"] for measured in rounds)
            found[work] = {"seconds": round(seconds, 2), "peak_gib": round(peak, 2)}
            print(f"{gigabytes:5.2f} GB  {work:7s} {seconds:7.2f} s  {peak:6.2f} GiB", flush=True)
        ratios = [
            measured["tunery"]["seconds"] / measured["copy"]["seconds"] for measured in rounds
        ]
        found["times_copy"] = round(statistics.median(ratios), 2)
        if "peft" in works:
            ratios = [m["peft"]["seconds"] / m["tunery"]["seconds"] for m in rounds]
            found["times_faster_than_peft"] = round(statistics.median(ratios), 2)
        results[f"{size}gb"] = found
        shutil.rmtree(run)
    peaks = [results[f"{size}gb"]["tunery"]["peak_gib"] for size in options.sizes]
    results["peak_spread"] = round(max(peaks) / min(peaks) - 1, 3)
    results["peak_bar_gib"] = round(2 * LARGEST_FP32_GIB + 0.5, 2)
    return results


def run_work(work: str, run: Path, threads: int) -> dict[str, float]:
    """Seconds that the work itself says it took, and its process's peak of resident memory."""
    command = [sys.executable, "-m", "benchmarks.merge", "--only", work, "--folder", str(run)]
    watched = run_watched([*command, "--threads", str(threads)])
    seconds = float((run / "seconds").read_text())
    shutil.rmtree(run / "result")
    return {"seconds": seconds, "peak_gib": watched.peak_bytes / 2**30}


def work_copy(run: Path, threads: int) -> None:
    """`cp` of the same files, flushed."""
    with timed(run):
        subprocess.run(["/bin/cp", "-r", run / "base", run / "result"], check=True)
        flush(run / "result")


def work_tunery(run: Path, threads: int) -> None:
    """Our merge, as the merge stage calls it."""
    with timed(run):
        weights = MergedWeights.open(run / "base", [WeightedAdapter(run / "adapter")])
        with new_folder(run / "result") as folder:
            write_merged(weights, folder, num_threads=threads)


def work_peft(run: Path, threads: int) -> None:
    """Loading in bf16, `merge_and_unload`, `save_pretrained`, flushed."""
    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    with timed(run):
        base = AutoModelForCausalLM.from_pretrained(run / "base", dtype=torch.bfloat16)
        PeftModel.from_pretrained(base, run / "adapter").merge_and_unload().save_pretrained(
            run / "result"
        )
        flush(run / "result")


WORKS: dict[str, Callable[[Path, int], None]] = {
    "copy": work_copy,
    "tunery": work_tunery,
    "peft": work_peft,
}


class timed:
    """Writes the seconds of a block into the run's folder."""

    def __init__(self, run: Path) -> None:
        self._file = run / "seconds"

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._file.write_text(str(time.perf_counter() - self._started))


def flush(folder: Path) -> None:
    """Have everything below `folder` on the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def build_checkpoint(folder: Path, *, num_layers: int) -> None:
    """Random weights, standard deviation 0.02, in files of about a gibibyte."""
    folder.mkdir(parents=True)
    config = model_config(num_layers)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(17)
    writer = ShardWriter(folder)
    for name, tensor in skeleton.state_dict().items():
        values = torch.empty(tensor.shape, dtype=torch.bfloat16)
        writer.add({name: values.normal_(std=0.02, generator=generator)})
    writer.finish()
    config.save_pretrained(folder)


def model_config(num_layers: int) -> MistralConfig:
    """Mistral Small 3.1's language model with fewer layers and tokens."""
    return MistralConfig(
        architectures=["MistralForCausalLM"],
        vocab_size=32768,
        hidden_size=5120,
        intermediate_size=32768,
        num_hidden_layers=num_layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        sliding_window=None,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )


def build_adapter(base: Path, folder: Path) -> None:
    """peft's own adapter on all linear layers, as training would leave it."""
    config = MistralConfig.from_pretrained(base)
    with torch.device("meta"):
        model = get_peft_model(
            AutoModelForCausalLM.from_config(config),
            LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"),
        )
    model.peft_config["default"].save_pretrained(str(folder))
    generator = torch.Generator().manual_seed(18)
    factors = {
        name.replace(".default", ""): torch.empty(parameter.shape, dtype=torch.bfloat16).normal_(
            std=0.01, generator=generator
        )
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
