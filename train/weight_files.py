"""A checkpoint's weight files, read a tensor at a time, and checkpoints made out of them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from configs.errors import UserError
from data.cache import cache_folder, disk_error, only_one

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
# What of a checkpoint folder belongs to it besides the weights.
CARRIED_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
SHARD_BYTES = 2**30
# Told how many tensors are done, and of how many.
OnTensor = Callable[[int, int], None]
MORE_CACHE = (
    "free some disk space, or put the cache on another disk with the environment variable "
    "TUNERY_CACHE"
)


def list_shards(checkpoint: Path) -> list[Path]:
    """The checkpoint's weight files, in order; a `UserError` where one is missing."""
    index = checkpoint / INDEX_FILE
    names = [SINGLE_FILE]
    if index.exists():
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
        names = sorted(set(weight_map.values()))
    for name in names:
        if not (checkpoint / name).is_file():
            raise UserError(
                f"the checkpoint has no {name}",
                where=checkpoint,
                remedy="fetch the model's safetensors files completely",
            )
    return [checkpoint / name for name in names]


def list_carried_files(checkpoint: Path) -> list[Path]:
    """Configuration, tokenizer and templates, without the weights' index."""
    return sorted(
        file
        for pattern in CARRIED_FILES
        for file in checkpoint.glob(pattern)
        if file.name != INDEX_FILE
    )


def tensor_names(shard: Path) -> list[str]:
    """Names of the tensors in one file."""
    with safe_open(shard, framework="pt") as file:
        return list(file.keys())


def read_tensor(shard: Path, name: str) -> torch.Tensor:
    """One tensor, with the file mapped for as long as the tensor lives and no longer.

    A file that stays open has every page that was ever read counted as this process's memory.
    """
    with safe_open(shard, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def check_free_space(
    folder: Path,
    *,
    needed: int,
    remedy: str = "free some disk space, or put the runs elsewhere with --runs",
) -> None:
    """Raise a `UserError` unless `needed` bytes are free where `folder` will stand."""
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise UserError(
            f"{needed / 2**30:.1f} GiB are needed on this disk, {free / 2**30:.1f} GiB are free",
            where=folder,
            remedy=remedy,
        )


def made_once(checkpoint: Path, *, kind: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """The folder in the cache that `make` writes out of `checkpoint`, at the first call.

    Another one is made when the recipe changes, or a file: weights are told by name, size and time,
    the others by what they hold.
    """
    digest = hashlib.sha256(recipe.encode())
    for shard in list_shards(checkpoint):
        stat = shard.stat()
        digest.update(f"{shard.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    for file in list_carried_files(checkpoint):
        digest.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    name = f"{checkpoint.resolve().name}-{digest.hexdigest()[:16]}"
    folder = cache_folder() / kind / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with only_one(folder):
            if not folder.exists():
                make(folder)
    return folder


def write_carried_files(checkpoint: Path, folder: Path, *, config: dict[str, Any]) -> None:
    """Copy what belongs to a checkpoint besides its weights, with another config.json."""
    for file in list_carried_files(checkpoint):
        shutil.copyfile(file, folder / file.name)
    # Its name of old, which would stand beside the new one.
    config = {name: value for name, value in config.items() if name != "torch_dtype"}
    (folder / "config.json").write_text(json.dumps(config, indent=2))


class ShardWriter:
    """Writes tensors into files of at most `SHARD_BYTES` (one tensor may be larger) and an index.

    Only the tensors of the file that is filled next are held in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pending: dict[str, torch.Tensor] = {}
        self._files: list[list[str]] = []
        self._num_bytes = 0

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take tensors that belong into one file; errors: `UserError` for a full disk."""
        if self._pending and _num_bytes(self._pending) + _num_bytes(tensors) > SHARD_BYTES:
            self._write()
        self._pending |= tensors
        if _num_bytes(self._pending) > SHARD_BYTES:
            self._write()

    def finish(self) -> None:
        """Write what is left, give the files their names, and write the index."""
        if self._pending:
            self._write()
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._files, start=1):
            final = f"model-{number:05d}-of-{len(self._files):05d}.safetensors"
            (self._folder / f"{number}.partial").rename(self._folder / final)
            weight_map |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": self._num_bytes}, "weight_map": weight_map}
        (self._folder / INDEX_FILE).write_text(json.dumps(index, indent=2))

    def _write(self) -> None:
        file = self._folder / f"{len(self._files) + 1}.partial"
        try:
            save_file(self._pending, file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise disk_error(OSError(str(error)), self._folder) from error
        self._files.append(list(self._pending))
        self._num_bytes += _num_bytes(self._pending)
        self._pending = {}


def _num_bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
