"""One artefact of each format, out of the merged weights."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from configs.schema import ArtefactFormat, MergeConfig
from train.artefacts.gguf import gguf_disk_bytes, make_gguf
from train.artefacts.gptq import check_gptq, write_w4a16_gptq
from train.artefacts.mmproj import mmproj_disk_bytes
from train.artefacts.nf4 import write_nf4
from train.artefacts.served_form import write_served_form
from train.artefacts.w4a16 import write_w4a16
from train.merging.merged_weights import MergedWeights
from train.rows import load_rows
from train.weight_files import OnTensor, list_shards

# Rows and tokens that GPTQ looks at: its paper takes 128 of 2,048.
CALIBRATION_ROWS = 128
CALIBRATION_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What artefacts are made of.

    merged: the sum, rounded to bf16, in the served form; weights: the sum before rounding;
    train_rows: what a calibration looks at; name: the variant's.
    """

    weights: MergedWeights
    merged: Path
    template: str
    train_rows: Path
    name: str


def make_artefact(
    kind: ArtefactFormat,
    path: Path,
    sources: Sources,
    config: MergeConfig,
    *,
    on_tensor: OnTensor | None = None,
) -> dict[str, Any]:
    """Write one artefact to `path`, a file or a folder; facts for the manifest.

    `bf16` is `sources.merged` itself. Errors: `UserError`, of what makes the format.
    """
    match kind:
        case "bf16":
            return {}
        case "w4a16" | "nf4":
            facts = _write_folder(kind, path, sources, config, on_tensor)
            write_served_form(sources.weights.checkpoint, path, template=sources.template)
            return facts
        case "f16" | "q8_0" | "q6_k" | "q5_k_m" | "q4_k_m":
            make_gguf(
                sources.merged,
                path,
                number_format=kind,
                name=sources.name,
                chat_template=sources.template,
                num_threads=num_threads(),
            )
            return {}
    assert_never(kind)


def _write_folder(
    kind: ArtefactFormat,
    path: Path,
    sources: Sources,
    config: MergeConfig,
    on_tensor: OnTensor | None,
) -> dict[str, Any]:
    if kind == "nf4":
        return write_nf4(sources.weights, path, on_tensor=on_tensor)
    if config.w4a16_method == "rounding":
        return write_w4a16(sources.weights, path, on_tensor=on_tensor)
    return write_w4a16_gptq(
        sources.merged,
        path,
        rows=load_rows(sources.train_rows),
        num_rows=CALIBRATION_ROWS,
        max_length=CALIBRATION_TOKENS,
        on_tensor=on_tensor,
    )


def check_can_be_made(config: MergeConfig) -> None:
    """Raise a `UserError` for an artefact that needs what is not installed."""
    if "w4a16" in config.artefacts and config.w4a16_method == "gptq":
        check_gptq()


def disk_bytes(config: MergeConfig, checkpoint: Path, *, with_base: bool, with_vision: bool) -> int:
    """Bytes of disk that the merge stage takes at its peak, rather too many than too few.

    with_base: also the base as a GGUF of the served format.
    """
    merged = sum(shard.stat().st_size for shard in list_shards(checkpoint))
    ggufs = [kind for kind in config.artefacts if kind not in ("bf16", "w4a16", "nf4")]
    if with_base:
        ggufs.append(config.served)
    total = merged
    for kind in ggufs:
        assert kind != "bf16" and kind != "w4a16" and kind != "nf4"
        total += gguf_disk_bytes(checkpoint, number_format=kind)
    # Four bits and a scale instead of 16, and head and embedding as they are.
    total += len({"w4a16", "nf4"} & set(config.artefacts)) * merged // 2
    return total + (mmproj_disk_bytes(checkpoint) if with_vision else 0)


def num_threads() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
