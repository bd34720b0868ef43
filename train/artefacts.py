"""The merge stage: base and adapter in; merged bf16 checkpoint and served artefacts out."""

from pathlib import Path
from typing import Any

from configs.artefact_paths import base_gguf, variant_gguf
from configs.schema import BaseBaseline, RunConfig
from data.cache import new_folder
from train.gguf import convert_to_gguf
from train.merge import merge_adapter
from train.plain_checkpoint import resolve_plain


def make_artefacts(config: RunConfig, run: Path, *, checkpoint: Path) -> dict[str, Any]:
    """Write `merged/` and `artefacts/`; the base's artefact only where it is the baseline."""
    # A ready 4-bit base is put back into bf16: neither merging nor llama.cpp's converter reads it.
    checkpoint = resolve_plain(checkpoint)
    facts = merge_adapter(checkpoint, run / "adapter", run / "merged")
    sources = [(run / "merged", variant_gguf(run, config), config.name)]
    if isinstance(config.evaluation.baseline, BaseBaseline):
        sources.append((checkpoint, base_gguf(run, config), config.model.name))
    with new_folder(run / "artefacts") as folder:
        for source, final, name in sources:
            convert_to_gguf(source, folder / final.name, number_format=config.merge.gguf, name=name)
    facts["artefact_mib"] = {
        final.name: round(final.stat().st_size / 2**20, 1) for _, final, _ in sources
    }
    return facts
