import io
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from configs.errors import UserError
from configs.schema import TrainConfig
from train.out_of_memory import is_out_of_memory, with_reliefs
from train.plan.advice import Relief

ROOT = Path(__file__).parents[2]


class Tensors:
    """Stands for what an attempt holds, which a trainer and its callbacks hold in a circle."""

    itself: "Tensors"


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=100, file=io.StringIO())


def half(config: TrainConfig) -> Iterator[Relief]:
    while config.micro_batch_rows > 1:
        rows = config.micro_batch_rows // 2
        config = config.model_copy(update={"micro_batch_rows": rows})
        yield Relief(f"micro_batch_rows: {rows}", config)


def test_training_goes_on_with_as_many_reliefs_as_it_needs(console: Console) -> None:
    held: list[weakref.ref[Tensors]] = []

    def attempt(config: TrainConfig) -> int:
        assert all(reference() is None for reference in held), "a failed attempt is still held"
        tensors = Tensors()
        tensors.itself = tensors
        held.append(weakref.ref(tensors))
        if config.micro_batch_rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return config.micro_batch_rows

    config = TrainConfig(num_steps=1, batch_rows=8, micro_batch_rows=8)
    result, taken = with_reliefs(attempt, config, half(config), console)
    assert result == 2
    assert taken == ["micro_batch_rows: 4", "micro_batch_rows: 2"]
    assert console.export_text().count("out of memory: going on with micro_batch_rows") == 2


def test_with_nothing_left_the_error_says_what_to_do(console: Console) -> None:
    def attempt(config: TrainConfig) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    config = TrainConfig(num_steps=1, batch_rows=2, micro_batch_rows=2)
    with pytest.raises(UserError, match=r"(?s)nothing is left.*2.00 GiB.*tunery plan"):
        with_reliefs(attempt, config, half(config), console)


def test_other_errors_are_not_taken_for_it(console: Console) -> None:
    def attempt(config: TrainConfig) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    config = TrainConfig(num_steps=1)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        with_reliefs(attempt, config, half(config), console)


def test_the_host_refusing_memory_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("something else"))


# Trains on rows of 2,000 tokens where the address space leaves room for a few of them at a time.
LIMITED = """
import resource, sys
from pathlib import Path
import psutil, torch
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from rich.console import Console
from configs.schema import TrainConfig
from train.adapter import train_adapter
from train.job import TrainFiles

NUM_ROWS = 32
folder, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
for side in ("train", "validation"):
    ids, mask = np.arange(2000, dtype=np.int32) % 300 + 20, np.ones(2000, dtype=np.int8)
    columns = {"messages": ["[]"], "input_ids": [ids], "assistant_mask": [mask]}
    table = pa.table({name: values * NUM_ROWS for name, values in columns.items()})
    pq.write_table(table, folder / f"{side}.parquet")
names = ("train.parquet", "validation.parquet", "checkpoints", "trackers", "adapter")
config = TrainConfig(num_steps=1, batch_rows=NUM_ROWS, micro_batch_rows=NUM_ROWS,
                     max_validation_rows=1, validate_every_steps=100)
torch.set_num_threads(1)
room = int(sys.argv[3]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + room,) * 2)
facts = train_adapter(config, checkpoint=checkpoint, base_name="tiny", run_name="colours",
                      max_length=2000, files=TrainFiles(*(folder / name for name in names)),
                      resume=False, console=Console(width=100)).facts
print("reliefs:", facts["memory_reliefs"], "steps:", facts["num_steps"])
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="needs limits of address space")
def test_a_training_that_really_runs_out_of_memory_ends_with_its_adapter(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(tiny_checkpoint), "560"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "out of memory: going on with micro_batch_rows: 16" in result.stdout
    assert "steps: 1" in result.stdout
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
