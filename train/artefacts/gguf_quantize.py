"""A GGUF file of whole numbers made into a smaller one, a tensor at a time.

The types of the tensors are the ones that llama.cpp's own quantizer gives them (llama-quant.cpp),
so that a format's name means here what it means everywhere; the tests hold it against that program.
"""

import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import gguf
import numpy as np

from configs.errors import UserError
from data.cache import WRITE_ERRORS, disk_error
from train.artefacts.ggml_kernels import Bytes, Floats, Kind, quantize_rows
from train.artefacts.gguf_header import (
    Header,
    TensorPlace,
    number_field,
    pack_header,
    padding,
    read_header,
)

Format = Literal["q8_0", "q6_k", "q5_k_m", "q4_k_m"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILE_TYPES: dict[Format, gguf.LlamaFileType] = {
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q6_k": gguf.LlamaFileType.MOSTLY_Q6_K,
    "q5_k_m": gguf.LlamaFileType.MOSTLY_Q5_K_M,
    "q4_k_m": gguf.LlamaFileType.MOSTLY_Q4_K_M,
}
MAIN_KINDS = {"q8_0": Kind.Q8_0, "q6_k": Kind.Q6_K, "q5_k_m": Kind.Q5_K, "q4_k_m": Kind.Q4_K}
# For rows that are no whole blocks of 256 values.
FALLBACKS = {Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Kind.Q8_0}
READ_KINDS = (Kind.F32, Kind.F16, Kind.BF16)
# The matrices that the rule here is whole for; other families have more of them, and more rules.
MATRIX = re.compile(
    r"(token_embd|output|blk\.\d+\.(attn_(q|k|v|qkv|output)|ffn_(up|gate|down)))\.weight"
)
OWN_RULES = ("falcon",)
BLOCK = re.compile(r"blk\.(\d+)\.")
# Rows that are quantized at a time hold about this many values: 16 MiB in fp32.
PIECE_VALUES = 2**22


def quantize_gguf(source: Path, file: Path, *, number_format: Format, num_threads: int = 1) -> None:
    """Write `source`, a GGUF in F32, F16 or BF16, as `file` with the tensors' types of the format.

    All metadata stay but the file's type. num_threads: threads that quantize rows. Memory: some
    40 MiB a thread, whatever the model's size. `file` is gone where this fails. Errors: `UserError`
    for a source that is quantized already or of a family whose types are not known here (experts),
    for weights that are not finite, and for a full disk.
    """
    header = read_header(source)
    kinds = choose_kinds(header, number_format)
    fields = header.fields | {
        "general.file_type": number_field(int(FILE_TYPES[number_format])),
        "general.quantization_version": number_field(gguf.GGML_QUANT_VERSION),
    }
    tensors = [tensor._replace(kind=kinds[tensor.name]) for tensor in header.tensors]
    try:
        with (
            source.open("rb") as whole,
            file.open("wb") as out,
            ThreadPoolExecutor(num_threads) as pool,
        ):
            out.write(pack_header(Header(fields, tensors)))
            for tensor in header.tensors:
                pieces = _pieces(whole.fileno(), tensor, kinds[tensor.name], pool, num_threads)
                num_bytes = 0
                for piece in pieces:
                    num_bytes += out.write(piece.data)
                out.write(bytes(padding(num_bytes, header.alignment)))
    except BaseException as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in WRITE_ERRORS:
            raise disk_error(error, file) from error
        raise


def choose_kinds(header: Header, number_format: Format) -> dict[str, gguf.GGMLQuantizationType]:
    """The type of each tensor, by the rule of llama.cpp's quantizer without an importance matrix.

    Errors: `UserError` where the file is quantized already, and for architectures that have rules
    of their own.
    """
    _check_source(header)
    names = [tensor.name for tensor in header.tensors]
    values = [name for name in names if _is_value(name)]
    # The rule counts layers in their order, whatever the file's is.
    rank = {name: number for number, name in enumerate(sorted(values, key=_layer))}
    tied = "output.weight" not in names
    num_layers = _number(header, "block_count")
    many = _shares_values(header)
    kinds = {}
    for tensor in header.tensors:
        if len(tensor.shape) < 2:
            kinds[tensor.name] = tensor.kind
            continue
        kind = MAIN_KINDS[number_format]
        is_mixture = number_format in ("q4_k_m", "q5_k_m")
        if tensor.name == "output.weight" or (tied and tensor.name == "token_embd.weight"):
            fits = tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
            kind = Kind.Q8_0 if number_format == "q8_0" or not fits else Kind.Q6_K
        elif is_mixture and tensor.name in rank:
            if uses_more_bits(rank[tensor.name], len(values)):
                kind = Kind.Q6_K
            elif many and kind == Kind.Q4_K:
                kind = Kind.Q5_K
        elif is_mixture and "ffn_down" in tensor.name:
            kind = Kind.Q6_K if uses_more_bits(_layer(tensor.name), num_layers) else kind
        kinds[tensor.name] = _fitting(kind, tensor.shape[-1])
    return kinds


def uses_more_bits(layer: int, num_layers: int) -> bool:
    """Whether the mixtures give that layer's values and feed-forward outputs six bits.

    The first and the last eighth of the layers, and every third one between them.
    """
    first = num_layers // 8
    return layer < first or layer >= 7 * num_layers // 8 or (layer - first) % 3 == 2


def _check_source(header: Header) -> None:
    quantized = {tensor.kind.name for tensor in header.tensors if tensor.kind not in READ_KINDS}
    if quantized:
        raise UserError(
            f"the GGUF file is quantized already ({', '.join(sorted(quantized))})",
            remedy="start from one in F16, BF16 or F32",
        )
    experts = header.fields.get(f"{header.architecture}.expert_count")
    has_experts = experts is not None and experts.value > 0
    unknown = [
        tensor.name
        for tensor in header.tensors
        if len(tensor.shape) > 1 and not MATRIX.fullmatch(tensor.name)
    ]
    if header.architecture in OWN_RULES or unknown or has_experts:
        raise UserError(
            f"which tensors of this model ({header.architecture}) get how many bits is not known",
            remedy="choose f16 or q8_0 in `merge.artefacts`, or quantize the f16 file with "
            "llama.cpp's own llama-quantize",
        )


def _is_value(name: str) -> bool:
    return name.endswith((".attn_v.weight", ".attn_qkv.weight"))


def _layer(name: str) -> int:
    found = BLOCK.match(name)
    return int(found[1]) if found else -1


def _number(header: Header, name: str) -> int:
    return int(header.fields[f"{header.architecture}.{name}"].value)


def _shares_values(header: Header) -> bool:
    """Whether it is Llama's 70B, whose small value matrices get a bit more."""
    if header.architecture != "llama" or _number(header, "block_count") != 80:
        return False
    return bool(
        _number(header, "attention.head_count") != _number(header, "attention.head_count_kv")
    )


def _fitting(kind: gguf.GGMLQuantizationType, num_values: int) -> gguf.GGMLQuantizationType:
    """The type that takes rows of that many values in the place of `kind`."""
    if num_values % gguf.GGML_QUANT_SIZES[kind][0] == 0:
        return kind
    kind = FALLBACKS.get(kind, kind)
    return kind if num_values % gguf.GGML_QUANT_SIZES[kind][0] == 0 else Kind.F16


def _pieces(
    source: int,
    tensor: TensorPlace,
    kind: gguf.GGMLQuantizationType,
    pool: ThreadPoolExecutor,
    num_threads: int,
) -> Iterator[Bytes]:
    """The tensor's bytes in the type, piece by piece in order, flat."""
    num_rows = math.prod(tensor.shape[:-1])
    num_values = tensor.shape[-1]
    step = max(PIECE_VALUES // num_values, 1)

    def read(start: int) -> Bytes:
        size = tensor.num_bytes // num_rows
        rows = min(step, num_rows - start)
        raw = _read(source, tensor.offset + start * size, rows * size)
        if kind == tensor.kind:
            return raw
        return quantize_rows(_floats(raw, tensor.kind, num_values), kind).reshape(-1)

    yield from _in_order(read, range(0, num_rows, step), pool, ahead=num_threads + 1)


def _in_order(
    work: Callable[[int], Bytes], starts: Sequence[int], pool: ThreadPoolExecutor, *, ahead: int
) -> Iterator[Bytes]:
    """As the pool's own `map`, which would begin all and so hold all."""
    running: deque[Future[Bytes]] = deque()
    for start in starts:
        running.append(pool.submit(work, start))
        if len(running) >= ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _read(source: int, offset: int, num_bytes: int) -> Bytes:
    """Read and not mapped: pages of a mapped file count as this process's memory."""
    parts = []
    while num_bytes:
        part = os.pread(source, num_bytes, offset)
        if not part:
            raise UserError("the GGUF file ends within a tensor", remedy="convert it again")
        parts.append(part)
        offset += len(part)
        num_bytes -= len(part)
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


def _floats(raw: Bytes, kind: gguf.GGMLQuantizationType, num_values: int) -> Floats:
    floats: Floats
    if kind == Kind.BF16:
        # The upper half of fp32.
        floats = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        floats = raw.view(np.float16 if kind == Kind.F16 else np.float32).astype(np.float32)
    return floats.reshape(-1, num_values)
