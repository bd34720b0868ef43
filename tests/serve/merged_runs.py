"""Runs that look merged, with the files that a test says: what serving finds of a run."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.artefact_paths import adapter_export, base_gguf, variant_gguf
from configs.load import load_config
from configs.run_directory import create_run
from serve.of_runs import Run
from tests.configs.minimal import write_config


def make_run(
    folder: Path,
    name: str,
    *,
    model: str = "tiny",
    weights: str = "weights",
    files: Mapping[str, Path | None] | None = None,
    merged: bool = True,
    **sections: dict[str, Any],
) -> Run:
    """A run below `folder`/runs. weights: the base's folder; files: what stands as its `variant`,
    `base` and `adapter`, an empty file where that is None; merged: whether that stage is done;
    sections: further sections of its configuration.
    """
    file = write_config(
        folder,
        ("name: minimal", f"name: {name}"),
        ("name: tiny", f"name: {model}"),
        ("path: weights", f"path: {weights}"),
        name=f"{name}.yaml",
    )
    further = "".join(f"{key}: {value}\n" for key, value in sections.items())
    file.write_text(file.read_text(encoding="utf-8") + further, encoding="utf-8")
    config = load_config(file)
    directory = create_run(config, folder / "runs")
    if merged:
        directory.write_record("merge", {"state": "done"})
    places = {
        "variant": variant_gguf(directory.path, config),
        "base": base_gguf(directory.path, config),
        "adapter": directory.path / adapter_export(config, "llamacpp"),
    }
    for what, content in (files or {}).items():
        places[what].parent.mkdir(exist_ok=True)
        if content is None:
            places[what].touch()
        else:
            shutil.copy(content, places[what])
    return directory, config
