"""Training the 24B on one card: memory and speed by length, against plain TRL and Unsloth.

    python -m benchmarks.train_24b [--lengths 2048 8192 …] [--ranks 16 32] [--sides tunery trl]

No weights are downloaded: a checkpoint of the architecture with random weights is quantized to NF4,
once; speed and memory do not depend on the values. Each case trains in a process of its own whose
allocator may take 23 GiB, what a 24 GB card leaves. Packed documents have about 1,000 tokens, a
third of them supervised. The ceiling is what the card multiplies matrices at, measured in the same
run, over the arithmetic that a token needs. `--smoke` runs it all on a tiny model, on any machine.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import Mistral3Config, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from benchmarks.clock import Clock
from benchmarks.machine import describe_machine
from configs.schema import TrainConfig
from data.cache import cache_folder, new_folder
from train.adapter import build_model
from train.nf4_checkpoint import build_skeleton, quantize_weight, replace_linears
from train.plan.architecture import read_architecture
from train.plan.memory import plan_memory
from train.plan.speed import count_operations
from train.plan.step import Batch, Step
from train.quantization import nf4_recipe
from train.quantized_base import training_device
from train.rows import load_rows
from train.trainers import build_supervised_trainer, plan_steps, shared_arguments
from train.weight_files import ShardWriter

# The text model and the vision tower of Mistral Small 3.1 (2503), by its config.json.
ARCHITECTURE: dict[str, Any] = {
    "text_config": {
        "model_type": "mistral",
        "vocab_size": 131_072,
        "hidden_size": 5120,
        "intermediate_size": 32_768,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e9,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "vision_config": {
        "model_type": "pixtral",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "head_dim": 64,
        "image_size": 1540,
        "patch_size": 14,
    },
}
SMOKE: dict[str, Any] = {
    "text_config": ARCHITECTURE["text_config"]
    | {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 4096}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    "vision_config": ARCHITECTURE["vision_config"]
    | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    | {"num_attention_heads": 4, "head_dim": 16},
}
CARD_GIB = 23.0
GIB = 2**30
WARM_UP_STEPS, MEASURED_STEPS = 1, 4
# From here on hidden states wait in host memory and MLPs work on tiles.
LONG_TOKENS = 16_384
TILE_TOKENS = 4096
MEAN_DOCUMENT = 1000


def main() -> None:
    """Measure every case and print a table; the last line is one JSON object."""
    arguments = _parse_arguments()
    if arguments.case:
        print(json.dumps(_measure(**json.loads(arguments.case))))
        return
    if not torch.cuda.is_available() and not arguments.smoke:
        print("no CUDA device: not measured")
        print(json.dumps({"benchmark": "train_24b", "value": None, "unit": "tokens/s"}))
        return
    checkpoint = _random_checkpoint(SMOKE if arguments.smoke else ARCHITECTURE)
    machine = describe_machine(["torch", "transformers", "trl", "peft", "bitsandbytes"])
    matmul_tflops = round(_matmul_rate() / 1e12, 1) if torch.cuda.is_available() else None
    print(json.dumps({"machine": machine, "matmul_tflops": matmul_tflops}))
    results = []
    for rank in arguments.ranks:
        for length in arguments.lengths:
            for side in arguments.sides:
                case = {"side": side, "length": length, "rank": rank, "checkpoint": str(checkpoint)}
                results.append(case | _run(case))
                results[-1] |= _judge(results[-1], matmul_tflops, checkpoint)
                print(_format(results[-1]), flush=True)
    best = max(r.get("tokens_per_second", 0.0) for r in results if r["side"] == "tunery")
    summary = {"benchmark": "train_24b", "value": best, "unit": "tokens/s"}
    taken_on = {"machine": machine, "matmul_tflops": matmul_tflops}
    print(json.dumps(summary | taken_on | {"cases": results}))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 32])
    peers = ["trl"] + ["unsloth"] * (importlib.util.find_spec("unsloth") is not None)
    parser.add_argument("--sides", nargs="+", default=["tunery", *peers])
    parser.add_argument("--smoke", action="store_true", help="a tiny model, also without a GPU")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser.parse_args()


def _random_checkpoint(architecture: dict[str, Any]) -> Path:
    """An NF4 checkpoint of the architecture; its values come from one seed."""
    name = f"random-{architecture['text_config']['hidden_size']}"
    folder = cache_folder() / "benchmarks" / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    device = training_device()
    torch.manual_seed(17)
    with new_folder(folder) as partial:
        config = Mistral3Config(**architecture, architectures=["Mistral3ForConditionalGeneration"])
        config.save_pretrained(partial)
        skeleton = build_skeleton(partial)
        replace_linears(skeleton)
        writer = ShardWriter(partial)
        for module_name, module in skeleton.named_modules():
            for part, parameter in module.named_parameters(recurse=False):
                name = f"{module_name}.{part}"
                if isinstance(module, Linear4bit):
                    shape: Any = (module.out_features, module.in_features)
                    weight = torch.randn(shape, dtype=torch.bfloat16, device=device) * 0.02
                    writer.add(quantize_weight(weight, name))
                elif parameter.ndim == 1:
                    writer.add({name: torch.ones(parameter.shape, dtype=torch.bfloat16)})
                else:
                    values = torch.randn(parameter.shape, dtype=torch.bfloat16, device=device)
                    writer.add({name: (values * 0.02).cpu()})
        writer.finish()
        quantized = json.loads((partial / "config.json").read_text())
        quantized |= {"dtype": "bfloat16", "quantization_config": nf4_recipe().to_dict()}
        (partial / "config.json").write_text(json.dumps(quantized, indent=2))
    return folder


def _run(case: dict[str, Any]) -> dict[str, Any]:
    """The case in a process of its own; what it died of where it failed."""
    command = [sys.executable, "-m", "benchmarks.train_24b", "--case", json.dumps(case)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == 0:
        measured: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return measured
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    out_of_memory = any("out of memory" in line.lower() for line in lines)
    return {"failed": "out of memory" if out_of_memory else lines[-1][:200]}


def _judge(result: dict[str, Any], matmul_tflops: float | None, checkpoint: Path) -> dict[str, Any]:
    """What `tunery plan` says of the case, and the share of the card's ceiling that it reached."""
    config = json.loads((checkpoint / "config.json").read_text())
    architecture = read_architecture(config, where=str(checkpoint))
    settings = _settings(result["length"], result["rank"])
    supervised = result["length"] // 3
    batch = Batch(result["length"], supervised, min(result["length"], MEAN_DOCUMENT))
    step = Step(architecture, settings, batch, "cuda")
    judged: dict[str, Any] = {}
    if result["side"] == "tunery":
        judged["planned_gib"] = round(plan_memory(step, with_vision=False).peak / GIB, 2)
    if matmul_tflops and "tokens_per_second" in result:
        ceiling = matmul_tflops * 1e12 * result["length"] / count_operations(step)
        judged["share_of_ceiling"] = round(result["tokens_per_second"] / ceiling, 3)
    return judged


def _measure(side: str, length: int, rank: int, checkpoint: str) -> dict[str, Any]:
    """Tokens/s over the measured steps, and the peak of what the allocator held."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CARD_GIB * GIB / total))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        rows = _write_rows(Path(folder) / "rows.parquet", length, Path(checkpoint))
        started = time.perf_counter()
        build = {"tunery": _build_tunery, "trl": _build_trl, "unsloth": _build_unsloth}[side]
        trainer = build(Path(checkpoint), rows, length, rank, Path(folder))
        loaded = time.perf_counter()
        trainer.add_callback(clock)
        trainer.train()
    marks = clock.marks[WARM_UP_STEPS - 1 :]
    tokens = marks[-1][1] - marks[0][1]
    memory = torch.cuda.memory_stats() if on_gpu else {}
    return {
        "tokens_per_second": round(tokens / (marks[-1][0] - marks[0][0]), 1),
        "peak_allocated_gib": round(memory.get("allocated_bytes.all.peak", 0) / GIB, 2),
        "peak_reserved_gib": round(memory.get("reserved_bytes.all.peak", 0) / GIB, 2),
        "load_seconds": round(loaded - started, 1),
    }


def _write_rows(file: Path, length: int, checkpoint: Path) -> Path:
    """Documents of `MEAN_DOCUMENT` tokens, half more or less, enough for every step's pack."""
    config = json.loads((checkpoint / "config.json").read_text())
    vocabulary = config["text_config"]["vocab_size"]
    generator = np.random.default_rng(17)
    num_tokens = length * (WARM_UP_STEPS + MEASURED_STEPS + 1)
    shortest, longest = MEAN_DOCUMENT // 2, 3 * MEAN_DOCUMENT // 2
    lengths: list[int] = []
    while sum(lengths) < num_tokens:
        lengths.append(min(length, int(generator.integers(shortest, longest))))
    ids = [generator.integers(100, vocabulary, n).astype(np.int32) for n in lengths]
    masks = [(np.arange(n) >= n - n // 3).astype(np.int8) for n in lengths]
    columns = {"id": [str(n) for n in range(len(ids))], "where": ["-"] * len(ids)}
    columns["messages"] = ["[]"] * len(ids)
    pq.write_table(pa.table(columns | {"input_ids": ids, "assistant_mask": masks}), file)
    return file


def _build_tunery(
    checkpoint: Path, rows_file: Path, length: int, rank: int, folder: Path
) -> SFTTrainer:
    config = _settings(length, rank)
    rows = load_rows(rows_file)
    return build_supervised_trainer(
        config,
        model=build_model(config, checkpoint),
        tokenizer=_stand_in_tokenizer(),
        train_rows=rows,
        validation_rows=rows,
        steps=plan_steps(config, rows.lengths, max_length=length),
        max_length=length,
        arguments=shared_arguments(config, num_steps=WARM_UP_STEPS + MEASURED_STEPS, folder=folder),
        callbacks=[],
    )


def _settings(length: int, rank: int) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "lora": {"rank": rank, "alpha": 2 * rank},
            "num_steps": WARM_UP_STEPS + MEASURED_STEPS,
            "packing": True,
            "batch_rows": 1,
            "micro_batch_rows": 1,
            "optimizer": "adamw_8bit",
            "gradient_checkpointing": True,
            "offload_embedding": True,
            "offload_activations": length >= LONG_TOKENS,
            "mlp_tile_tokens": TILE_TOKENS if length >= LONG_TOKENS else None,
            "validate_every_steps": 10_000,
            "save_every_steps": 10_000,
        }
    )


def _build_trl(
    checkpoint: Path, rows_file: Path, length: int, rank: int, folder: Path
) -> SFTTrainer:
    """TRL and peft as their documentation leads to: packing, LoRA on all linear layers."""
    return SFTTrainer(
        model=str(checkpoint),
        args=_trl_arguments(length, folder, model_init_kwargs={"dtype": torch.bfloat16}),
        train_dataset=_trl_rows(rows_file),
        processing_class=_stand_in_tokenizer(),
        peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"),
    )


def _build_unsloth(
    checkpoint: Path, rows_file: Path, length: int, rank: int, folder: Path
) -> SFTTrainer:
    """Unsloth as its documentation leads to, on the same rows through TRL's packing."""
    from unsloth import FastLanguageModel  # type: ignore[import-not-found]  # noqa: PLC0415

    model, _ = FastLanguageModel.from_pretrained(
        str(checkpoint), max_seq_length=length, load_in_4bit=True, dtype=torch.bfloat16
    )
    model = FastLanguageModel.get_peft_model(
        model, r=rank, lora_alpha=2 * rank, use_gradient_checkpointing="unsloth"
    )
    return SFTTrainer(
        model=model,
        args=_trl_arguments(length, folder),
        train_dataset=_trl_rows(rows_file),
        processing_class=_stand_in_tokenizer(),
    )


def _trl_arguments(length: int, folder: Path, **options: Any) -> SFTConfig:  # noqa: ANN401
    return SFTConfig(
        output_dir=str(folder),
        max_steps=WARM_UP_STEPS + MEASURED_STEPS,
        per_device_train_batch_size=1,
        packing=True,
        max_length=length,
        bf16=torch.cuda.is_available(),
        include_num_input_tokens_seen="all",
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        **options,
    )


def _trl_rows(file: Path) -> datasets.Dataset:
    table = pq.read_table(file).to_pylist()
    labels = [
        [
            token if on else -100
            for token, on in zip(r["input_ids"], r["assistant_mask"], strict=True)
        ]
        for r in table
    ]
    return datasets.Dataset.from_dict(
        {"input_ids": [r["input_ids"] for r in table], "labels": labels}
    )


def _stand_in_tokenizer() -> PreTrainedTokenizerBase:
    """The rows are tokens already; the trainers only want to know which one pads."""
    backend = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "<pad>": 2}, []))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def _matmul_rate(size: int = 8192, rounds: int = 20) -> float:
    """FLOP/s of square bf16 products, the best of three."""
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    rates = []
    for _ in range(3):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(rounds):
            left @ right
        torch.cuda.synchronize()
        rates.append(rounds * 2 * size**3 / (time.perf_counter() - started))
    return max(rates)


def _format(result: dict[str, Any]) -> str:
    case = f"{result['side']:>8} r{result['rank']:<3} {result['length']:>6} tokens"
    if "failed" in result:
        return f"{case}: {result['failed']}"
    return (
        f"{case}: {result['tokens_per_second']:>8.1f} tokens/s, "
        f"{result['peak_allocated_gib']:.2f} GiB allocated, "
        f"{result['peak_reserved_gib']:.2f} reserved, "
        f"planned {result.get('planned_gib', '-')}, share {result.get('share_of_ceiling', '-')}"
    )


if __name__ == "__main__":
    main()
