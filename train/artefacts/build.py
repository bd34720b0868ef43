"""The merge stage, step by step: base and adapter in; artefacts out, each held to the adapter."""

import math
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from transformers.utils import logging as transformers_logging

from configs.artefact_paths import (
    ARTEFACTS_FOLDER,
    MERGED_FOLDER,
    adapter_export,
    artefact_path,
    base_gguf,
    mmproj_gguf,
)
from configs.schema import RunConfig
from data.cache import new_folder
from train.artefacts.gguf import make_gguf
from train.artefacts.lora_gguf import make_lora_gguf
from train.artefacts.make import (
    Sources,
    check_can_be_made,
    disk_bytes,
    make_artefact,
    num_threads,
)
from train.artefacts.mmproj import make_mmproj
from train.artefacts.served_form import served_template, write_served_form
from train.artefacts.steps import Steps
from train.artefacts.vllm_adapter import write_vllm_adapter
from train.artefacts.yardstick import Merge, OpenGguf, Yardstick, judge_artefact, take_yardstick
from train.gates.run import check_passed
from train.merge_report.facts import ArtefactFacts, MergeFacts
from train.merge_report.page import write_merge_report
from train.merging.merged_weights import MergedWeights
from train.merging.survival import survival_warning, worst_tensors
from train.merging.write import write_merged
from train.plain_checkpoint import resolve_plain
from train.quantization import is_vision, read_config, read_quantization
from train.weight_files import check_free_space


def make_artefacts(
    config: RunConfig, run: Path, *, checkpoint: Path, open_gguf: OpenGguf, console: Console
) -> MergeFacts:
    """Write `artefacts/`, `merged/` where it is asked for, and `merge/report.html`.

    open_gguf: opens a GGUF in the engine that serves it, told the longest row in tokens. Whatever
    fails, also a gate, leaves the artefacts of an earlier merge as they were; the report is written
    in either case. Returns facts for the manifest. Errors: `UserError` for adapters that do not
    belong to the base, too little disk space, and artefacts that do not pass their gates.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    steps, report = Steps(console), run / "merge" / "report.html"
    merge = Merge(config=config, run=run, checkpoint=checkpoint, open_gguf=open_gguf, steps=steps)
    check_can_be_made(config.merge)
    # Weights that came in 4 bits are put back into bf16: nothing can be added to them as they are.
    plain = resolve_plain(checkpoint)
    with_base = config.needs_base
    needed = disk_bytes(config.merge, plain, with_base=with_base, with_vision=merge.has_vision)
    check_free_space(run / ARTEFACTS_FOLDER, needed=needed)
    # Whether the adapters belong to the base is known at once, and not after minutes of measuring.
    MergedWeights.open(plain, merge.adapters)
    yardstick = take_yardstick(merge)
    # A base that was quantized before is in its plain checkpoint as the adapter saw it.
    is_ready = read_quantization(checkpoint) is not None
    weights = MergedWeights.open(plain, merge.adapters, base="bf16" if is_ready else yardstick.kept)
    with ExitStack() as stack:
        # The folder that is renamed last is the one that `tunery serve` looks into.
        folder = stack.enter_context(new_folder(run / ARTEFACTS_FOLDER))
        merged = stack.enter_context(new_folder(run / MERGED_FOLDER))
        facts = _write_all(merge, weights, yardstick, merged=merged, folder=folder)
        report.parent.mkdir(exist_ok=True)
        write_merge_report(report, config=config, facts=facts)
        results = [result for one in facts["artefacts"] for result in one["gates"]]
        check_passed(results, where=str(report))
    for warning in facts["warnings"]:
        console.print(f"    [yellow]warning[/] {escape(warning)}")
    if "bf16" not in config.merge.artefacts:
        shutil.rmtree(run / MERGED_FOLDER)
    return facts


def _write_all(
    merge: Merge, weights: MergedWeights, yardstick: Yardstick, *, merged: Path, folder: Path
) -> MergeFacts:
    """Make and judge artefacts, up to the first that fails; the folders are renamed later."""
    config, steps = merge.config, merge.steps
    with steps.step("merging") as on_tensor:
        cosines = write_merged(weights, merged, num_threads=num_threads(), on_tensor=on_tensor)
    template = served_template(merge.checkpoint)
    write_served_form(weights.checkpoint, merged, template=template)
    sources = Sources(
        weights=weights,
        merged=merged,
        template=template,
        train_rows=merge.run / "data" / "train.parquet",
        name=config.name,
    )
    facts = _facts(merge, yardstick, cosines)
    for kind in config.merge.artefacts:
        path = merged if kind == "bf16" else folder / artefact_path(config, kind).name
        with steps.step(f"making {kind}") as on_tensor:
            details = make_artefact(kind, path, sources, config.merge, on_tensor=on_tensor)
        with steps.step(f"checking {kind}"):
            gates = judge_artefact(merge, kind, path, yardstick)
        facts["artefacts"].append(
            ArtefactFacts(
                format=kind,
                path=str(artefact_path(config, kind)),
                num_bytes=_num_bytes(path),
                num_parameters=_num_parameters(weights, with_vision=path.is_dir()),
                loss=next(one["figures"]["loss"] for one in gates if one["gate"] == "loss"),
                gates=gates,
                details=details,
            )
        )
        facts["warnings"] += [gate["told"] for gate in gates if gate["outcome"] == "warning"]
        if any(gate["outcome"] == "failed" for gate in gates):
            return facts
    facts["adapter_exports"] = _write_rest(merge, merged, folder, template)
    return facts


def _facts(merge: Merge, yardstick: Yardstick, cosines: Mapping[str, float]) -> MergeFacts:
    """All that is known before the first artefact."""
    warning, worst = survival_warning(cosines), worst_tensors(cosines)[0]
    further = merge.config.merge.further_adapters
    names = [merge.config.name, *(adapter.path.name for adapter in further)]
    return {
        "base": {"kept": yardstick.kept, "losses": yardstick.losses},
        "adapters": [
            {"name": name, "weight": adapter.weight}
            for name, adapter in zip(names, merge.adapters, strict=True)
        ],
        "architectures": read_config(merge.checkpoint).get("architectures") or [],
        "num_merged_tensors": len(cosines),
        "worst_update_cosine": round(cosines[worst], 4),
        "worst_update_tensor": worst,
        "survival": {name: round(cosine, 4) for name, cosine in cosines.items()},
        "reference_loss": yardstick.reference.scores.loss,
        "base_loss": yardstick.base.scores.loss,
        "artefacts": [],
        "seconds": merge.steps.seconds,
        "warnings": [warning] if warning else [],
    }


def _write_rest(merge: Merge, merged: Path, folder: Path, template: str) -> dict[str, Any]:
    """The baseline, the vision tower and the adapter by itself; facts of the last by engine."""
    config, steps = merge.config, merge.steps
    if config.needs_base:
        with steps.step("making the base's GGUF"):
            make_gguf(
                resolve_plain(merge.checkpoint),
                folder / base_gguf(merge.run, config).name,
                number_format=config.merge.served,
                name=config.model.name,
                chat_template=template,
                num_threads=num_threads(),
            )
    if merge.has_vision:
        with steps.step("making the vision tower's GGUF"):
            make_mmproj(merged, folder / mmproj_gguf(merge.run, config).name)
    exports: dict[str, Any] = {}
    if "llamacpp" in config.merge.adapter_exports:
        file = folder / adapter_export(config, "llamacpp").name
        make_lora_gguf(merge.adapters, merge.checkpoint, file, name=config.name)
        exports["llamacpp"] = {}
    if "vllm" in config.merge.adapter_exports:
        exports["vllm"] = write_vllm_adapter(
            merge.adapters,
            folder / adapter_export(config, "vllm").name,
            checkpoint=merge.checkpoint,
        )
    return exports


def _num_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _num_parameters(weights: MergedWeights, *, with_vision: bool) -> int:
    return sum(
        math.prod(tensor.shape)
        for tensor in weights.tensors
        if with_vision or not is_vision(tensor.name)
    )
