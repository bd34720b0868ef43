"""Where a run keeps its artefacts; known without loading what makes them."""

from pathlib import Path
from typing import Literal

from configs.schema import ArtefactFormat, RunConfig

MERGED_FOLDER = "merged"
ARTEFACTS_FOLDER = "artefacts"
FOLDER_FORMATS = ("w4a16", "nf4")


def artefact_path(config: RunConfig, name: ArtefactFormat) -> Path:
    """An artefact's place below the run directory: a GGUF file, or a folder."""
    if name == "bf16":
        return Path(MERGED_FOLDER)
    suffix = name if name in FOLDER_FORMATS else f"{name}.gguf"
    return Path(ARTEFACTS_FOLDER) / f"{config.name}.{suffix}"


def variant_gguf(run: Path, config: RunConfig) -> Path:
    """The artefact that answers under the variant's name."""
    return run / artefact_path(config, config.merge.served)


def base_gguf(run: Path, config: RunConfig) -> Path:
    """The untuned base in the served number format: what the variant is compared with."""
    return run / ARTEFACTS_FOLDER / f"base.{config.merge.served}.gguf"


def adapter_export(config: RunConfig, engine: Literal["vllm", "llamacpp"]) -> Path:
    """The adapter in an engine's own form, below the run directory: a GGUF file, or a folder."""
    suffix = "lora.gguf" if engine == "llamacpp" else "lora"
    return Path(ARTEFACTS_FOLDER) / f"{config.name}.{suffix}"


def mmproj_gguf(run: Path, config: RunConfig) -> Path:
    """The vision tower and projector, which all GGUFs of a vision-language model share."""
    return run / ARTEFACTS_FOLDER / f"{config.name}.mmproj.gguf"
