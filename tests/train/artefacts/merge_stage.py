"""The merge stage on a tiny run; as a program it kills itself: FOLDER STEP.

STEP: the step at whose beginning the process ends by SIGKILL.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from safetensors.torch import load_file, save_file

from configs.evaluation_schema import BaseBaseline, GuardConfig, HostedBaseline
from configs.load import load_config
from configs.schema import FolderModel, MergeConfig, RunConfig
from serve.llama_scorer import open_gguf
from tests.tiny_mistral3 import build_tiny_mistral3
from tests.train.gates.tiny_adapter import build_rows, train_adapter
from train.artefacts import build
from train.artefacts.build import make_artefacts
from train.artefacts.steps import Steps
from train.gates.scoring import Scorer
from train.merge_report.facts import MergeFacts
from train.weight_files import OnTensor, list_shards

ROOT = Path(__file__).parents[3]
HOSTED = HostedBaseline(kind="hosted", base_url="http://x", model="hosted", api_key_env="KEY")


def build_run(folder: Path) -> Path:
    """A trained run beside its `checkpoint`; returns the run directory, `folder`/run.

    A model as Mistral's, because llama.cpp's converter knows tokenizers by name alone.
    """
    checkpoint = build_tiny_mistral3(folder / "checkpoint", with_tokenizer=True)
    scale_head(checkpoint)
    run = folder / "run"
    (run / "data").mkdir(parents=True)
    train_adapter(checkpoint, run / "adapter", num_steps=40)
    for side, numbers in (("train", range(32)), ("validation", range(100, 116))):
        write_rows(checkpoint, numbers, run / "data" / f"{side}.parquet")
    return run


def scale_head(checkpoint: Path) -> None:
    """Have the model be sure of a token, as real ones are."""
    name = "language_model.lm_head.weight"
    for shard in list_shards(checkpoint):
        tensors = load_file(shard)
        if name in tensors:
            tensors[name] *= 8
            save_file(tensors, shard, metadata={"format": "pt"})


def write_rows(checkpoint: Path, numbers: range, file: Path) -> None:
    rows = build_rows(checkpoint, numbers)
    table = {
        "id": [row.conversation.id for row in rows],
        "messages": [orjson.dumps(row.conversation.messages).decode() for row in rows],
        "tools": ["" for _ in rows],
        "input_ids": [row.ids for row in rows],
        "assistant_mask": [row.mask for row in rows],
    }
    pq.write_table(pa.table(table), file)


def build_config(run: Path, *, hosted: bool = False, **merge: Any) -> RunConfig:  # noqa: ANN401 - fields
    demo = load_config(ROOT / "configs" / "demo-legal.yaml")
    source = FolderModel(kind="folder", path=run.parent / "checkpoint")
    evaluation = {"baseline": HOSTED if hosted else BaseBaseline(), "guard": GuardConfig(sets=[])}
    return demo.model_copy(
        update={
            "name": "tiny",
            "model": demo.model.model_copy(update={"source": source}),
            "merge": MergeConfig(num_gate_rows=8, gate_answer_tokens=8, **merge),
            "evaluation": demo.evaluation.model_copy(update=evaluation),
        }
    )


def open_served(file: Path, num_tokens: int) -> AbstractContextManager[Scorer]:
    return open_gguf(file, num_threads=1, context_length=num_tokens)


def run_stage(config: RunConfig, run: Path) -> MergeFacts:
    return make_artefacts(
        config,
        run,
        checkpoint=run.parent / "checkpoint",
        open_gguf=open_served,
        console=Console(quiet=True),
    )


class DeadlySteps(Steps):
    """Ends the process at the beginning of one step."""

    deadly: str

    @contextmanager
    def step(self, told: str) -> Iterator[OnTensor]:
        if told == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        with super().step(told) as on_tensor:
            yield on_tensor


def main() -> None:
    run = Path(sys.argv[1])
    DeadlySteps.deadly = sys.argv[2]
    vars(build)["Steps"] = DeadlySteps
    run_stage(build_config(run, artefacts=["f16"], hosted=True, base="bf16"), run)


if __name__ == "__main__":
    main()
