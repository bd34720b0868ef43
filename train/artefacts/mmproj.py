"""The vision tower and projector of a checkpoint as the second GGUF file that llama.cpp takes."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from safetensors.torch import save_file

from configs.errors import UserError
from data.tokens.mistral_images import IMG_BREAK, load_image_form
from train.artefacts.gguf import run_converter
from train.artefacts.gguf_header import read_header
from train.quantization import is_vision
from train.weight_files import INDEX_FILE, list_shards, tensor_names

# Named so that the converter takes it for one of the model's files.
BREAK_FILE = "model-image-break.safetensors"
WRITTEN_FILES = ("config.json", "preprocessor_config.json", "processor_config.json", INDEX_FILE)
# Without the first, rows of image tokens run into each other: llama.cpp only leaves them out.
NEEDED_TENSORS = ("v.token_embd.img_break", "v.patch_embd.weight", "mm.1.weight", "mm.2.weight")


def make_mmproj(
    checkpoint: Path, file: Path, *, number_format: Literal["f16", "bf16", "f32"] = "f16"
) -> None:
    """Write the vision tower, the projector and the embedding that ends a row of image tokens.

    number_format: of the matrices; F16 holds the bf16 of a trained model without loss but for the
    smallest numbers. `file` is gone where this fails. Errors: `UserError` for a model without a
    vision tower, without preprocessor_config.json, or with one that the converter does not know.
    """
    try:
        with _view(checkpoint) as view:
            run_converter(view, file, "--mmproj", "--outtype", number_format, where=checkpoint)
        missing = set(NEEDED_TENSORS) - {tensor.name for tensor in read_header(file).tensors}
        if missing:
            raise UserError(
                f"the conversion of the vision tower left {', '.join(sorted(missing))} out",
                where=checkpoint,
                remedy="report it: images would be read wrongly",
            )
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def mmproj_disk_bytes(checkpoint: Path) -> int:
    """Bytes of disk that the file takes: about those of the tensors themselves."""
    num_bytes = 2**20
    for shard in list_shards(checkpoint):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensor_names(shard):
                if is_vision(name):
                    size = 2
                    for length in tensors.get_slice(name).get_shape():
                        size *= length
                    # The patches' matrix and all vectors are in fp32.
                    num_bytes += 2 * size if "patch_conv" in name or "norm" in name else size
    return num_bytes


@contextmanager
def _view(checkpoint: Path) -> Iterator[Path]:
    """The checkpoint as the converter has to see it.

    Its filter drops all that is called `language_model` before its own code looks for the embedding
    of `[IMG_BREAK]` there, so the beginning of that matrix stands in a file of its own, too.
    """
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    form = load_image_form(checkpoint)
    if form is None:
        raise UserError(
            f"llama.cpp's file for images is not made for models of type "
            f"{config.get('model_type')}",
            where=checkpoint / "config.json",
            remedy="convert a Mistral3 with its vision tower",
        )
    processor = _image_processor(checkpoint)
    # The size of the largest image, which the converter looks for at the tower alone.
    config["vision_config"] |= {"image_size": form.longest_edge}
    processor |= {"image_mean": list(form.mean), "image_std": list(form.std)}
    with tempfile.TemporaryDirectory(prefix="tunery-mmproj-") as folder:
        view = Path(folder) / checkpoint.resolve().name
        view.mkdir()
        for file in checkpoint.iterdir():
            if file.is_file() and file.name not in WRITTEN_FILES:
                (view / file.name).symlink_to(file.resolve())
        (view / "config.json").write_text(json.dumps(config))
        (view / "preprocessor_config.json").write_text(json.dumps(processor))
        _write_break(checkpoint, view)
        yield view


def _image_processor(checkpoint: Path) -> dict[str, Any]:
    """How images are prepared: in a file of its own, or within the processor's."""
    own, whole = checkpoint / "preprocessor_config.json", checkpoint / "processor_config.json"
    if own.is_file():
        processor: dict[str, Any] = json.loads(own.read_text(encoding="utf-8"))
        return processor
    if whole.is_file():
        processor = json.loads(whole.read_text(encoding="utf-8")).get("image_processor") or {}
        if processor:
            return processor
    raise UserError(
        "the checkpoint has no preprocessor_config.json, so how it takes images is unknown",
        where=checkpoint,
        remedy="put the preprocessor_config.json of the model's page there",
    )


def _write_break(checkpoint: Path, view: Path) -> None:
    """Add the embeddings up to that of `[IMG_BREAK]`, under a name that passes the filter."""
    weight_map = {}
    for shard in list_shards(checkpoint):
        for name in tensor_names(shard):
            weight_map[name] = shard.name
            if name.endswith("embed_tokens.weight"):
                with safe_open(shard, framework="pt") as tensors:
                    rows = tensors.get_slice(name)[: IMG_BREAK + 1].clone()
                save_file({"embed_tokens.weight": rows}, view / BREAK_FILE)
    weight_map["embed_tokens.weight"] = BREAK_FILE
    (view / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
