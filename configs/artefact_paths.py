"""Where a run keeps the files that are served; known without loading what makes them."""

from pathlib import Path

from configs.schema import RunConfig


def variant_gguf(run: Path, config: RunConfig) -> Path:
    """The artefact that answers under the variant's name."""
    return run / "artefacts" / f"{config.name}.{config.merge.gguf}.gguf"


def base_gguf(run: Path, config: RunConfig) -> Path:
    """The untuned base in the same number format: what the variant is compared with."""
    return run / "artefacts" / f"base.{config.merge.gguf}.gguf"
