"""The prepare stage over 10,000, 100,000 and 1,000,000 conversations, all checks on.

    TUNERY_CORPORA=... python -m benchmarks.prepare [--rows 10000 100000 1000000]

Rows are made from the public corpora (docs/data.md) by putting other words of the same corpus in
the place of two in five: as long and as varied as real ones, and few are near
duplicates. Against: the bare tokenizer, `encode_batch` on the same rendered rows and cores,
in the same minutes. Memory is the resident set of the command and its worker processes together.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from benchmarks.memory import run_watched
from configs.load import load_config
from data.models.model_source import resolve_checkpoint
from data.tokens.load_tokenizer import load_tokenizer

CONFIG = Path("configs/demo-medical.yaml")
OTHER_WORDS = 0.4
# Of a real collection some rows are damaged, some are copies and some name people.
DAMAGED, REPEATED = 0.002, 0.01
BARE_ROWS = 100_000
BARE_BATCH = 1000


class Row(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


def main() -> None:
    """Prepare each number of rows in a process of its own; the last line is one JSON object."""
    arguments = _parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = {}
        for num_rows in arguments.rows:
            measured[num_rows] = _measure(folder, num_rows)
            print(f"{num_rows:,} rows: {json.dumps(measured[num_rows])}", flush=True)
    largest = measured[max(measured)]
    ratios = {
        f"seconds_{more}_over_{fewer}": round(
            measured[more]["seconds"] / measured[fewer]["seconds"], 2
        )
        for fewer, more in zip(arguments.rows, arguments.rows[1:], strict=False)
    }
    print(
        json.dumps(
            {
                "benchmark": "prepare",
                "value": largest["rows_per_second"],
                "unit": "rows/s",
                "against": "tokenizers encode_batch on the same rendered rows and cores",
                "ratio": largest["ratio"],
                "num_rows": max(measured),
                "peak_resident_gib": largest["peak_resident_gib"],
                **ratios,
            }
        )
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    if "TUNERY_CORPORA" not in os.environ:
        parser.error("set TUNERY_CORPORA to the folder of the public corpora (docs/data.md)")
    return arguments


def _measure(folder: Path, num_rows: int) -> dict[str, float]:
    rows_file, runs = folder / f"{num_rows}.jsonl", folder / f"runs-{num_rows}"
    write_rows(rows_file, read_corpora(Path(os.environ["TUNERY_CORPORA"])), num_rows)
    config_file = folder / f"{num_rows}.yaml"
    config_file.write_text(
        f"extends: {CONFIG.resolve()}\nname: bench\ndata:\n  source:\n    kind: files\n"
        f"    path: {rows_file}\nmodel:\n  max_length: 2048\n"
    )
    command = [sys.executable, "-m", "tunery", "prepare", str(config_file), "--runs", str(runs)]
    watched = run_watched(command)
    data = runs / "bench" / "data"
    facts = json.loads((data / "facts.json").read_text())
    num_used = sum(facts["num_rows"].values())
    bare_rows_per_second = _bare_speed(data / "train.parquet")
    rows_file.unlink()
    subprocess.run(["rm", "-r", str(runs)], check=True)  # noqa: S607
    return {
        "seconds": round(watched.seconds, 1),
        "rows_per_second": round(num_rows / watched.seconds),
        "bare_rows_per_second": round(bare_rows_per_second),
        "ratio": round(num_rows / watched.seconds / bare_rows_per_second, 3),
        "tokens_per_row": round(sum(facts["num_tokens"].values()) / num_used, 1),
        "peak_resident_gib": round(watched.peak_bytes / 2**30, 2),
        "num_rows_written": num_used,
        "num_near_clusters": facts["duplicates"]["num_near_clusters"],
    }


def _bare_speed(train_file: Path) -> float:
    """Rows a second of nothing but `encode_batch`, on the text of the first prepared rows."""
    checkpoint = resolve_checkpoint(load_config(CONFIG).model, with_weights=False)
    tokenizer = load_tokenizer(checkpoint)
    texts: list[str] = []
    for batch in pq.ParquetFile(train_file).iter_batches(BARE_BATCH, columns=["input_ids"]):
        texts += tokenizer.batch_decode(batch.column("input_ids").to_pylist())
        if len(texts) >= BARE_ROWS:
            break
    bare = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    batches = [texts[start : start + BARE_BATCH] for start in range(0, len(texts), BARE_BATCH)]
    started = time.monotonic()
    for texts_of_batch in batches:
        bare.encode_batch(texts_of_batch, add_special_tokens=False)
    return len(texts) / (time.monotonic() - started)


def read_corpora(folder: Path) -> list[list[Row]]:
    """The rows of each public corpus."""
    questions = (folder / "nl2bash.nl").read_text(encoding="utf-8").splitlines()
    commands = (folder / "nl2bash.cm").read_text(encoding="utf-8").splitlines()
    pubmed = json.loads((folder / "pubmedqa_pqal.json").read_text(encoding="utf-8"))
    law = list(csv.reader((folder / "mmlu_professional_law_test.csv").open(encoding="utf-8")))
    overruling = list(csv.DictReader((folder / "overruling.csv").open(encoding="utf-8")))
    return [
        [Row(q, a) for q, a in zip(questions, commands, strict=True)],
        [
            Row(f"{one['CONTEXTS'][0]}\n\n{one['QUESTION']}", one["final_decision"])
            for one in pubmed.values()
        ],
        [Row("\n".join(one[:5]), one[5]) for one in law],
        [Row(one["sentence1"], one["label"]) for one in overruling],
    ]


def write_rows(file: Path, corpora: list[list[Row]], num_rows: int) -> None:
    """Rows of all corpora in turn as JSON Lines, each with many of its words replaced."""
    generator = np.random.default_rng(17)
    words = [np.array(" ".join(row.question for row in rows).split()) for rows in corpora]
    # Three of four rows are short, as in most collections.
    shares = generator.choice(len(corpora), num_rows, p=[0.55, 0.15, 0.1, 0.2])
    with file.open("w", encoding="utf-8") as handle:
        line = ""
        for number, share in enumerate(shares.tolist()):
            if line and generator.random() < REPEATED:
                handle.write(line)
                continue
            row = corpora[share][generator.integers(len(corpora[share]))]
            own = np.array(row.question.split(" "), dtype=object)
            other = generator.random(len(own)) < OTHER_WORDS
            own[other] = generator.choice(words[share], int(other.sum()))
            record = {"id": f"row {number}", "prompt": " ".join(own), "completion": row.answer}
            line = json.dumps(record, ensure_ascii=False) + "\n"
            damaged = generator.random() < DAMAGED
            handle.write(line[: len(line) // 2] + "\n" if damaged else line)


if __name__ == "__main__":
    main()
