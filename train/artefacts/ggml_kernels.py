"""llama.cpp's own quantization of rows, called in the library that the served engine brings along.

The gguf package writes GGUF files but knows no K formats; the engine's shared library has exactly
the code that llama.cpp's quantizer runs, so nothing has to be compiled or written anew.
"""

import ctypes
import os
from functools import cache

import gguf
import numpy as np
import numpy.typing as npt
import xllamacpp

from configs.errors import UserError

Kind = gguf.GGMLQuantizationType
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
# What can be quantized without weights of importance.
KINDS = (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.Q8_0, Kind.Q5_0, Kind.Q5_1, Kind.F16, Kind.BF16)


def num_row_bytes(kind: Kind, num_values: int) -> int:
    """Bytes of a row of that many values, which are whole blocks of the type."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    assert num_values % block == 0, f"{num_values} values are no whole blocks of {kind.name}"
    return num_values // block * size


def quantize_rows(rows: Floats, kind: Kind) -> Bytes:
    """Rows (num_rows, num_values) in fp32 as (num_rows, bytes of a row) in one of `KINDS`.

    Runs in one thread and lets other threads of Python run meanwhile. num_values: whole blocks of
    `kind`. Errors: `UserError` for values that are not finite, which would spoil their whole block
    without a word, and where the engine's library cannot be used.
    """
    assert kind in KINDS and rows.ndim == 2 and rows.dtype == np.float32
    rows = np.ascontiguousarray(rows)
    if not np.isfinite(rows).all():
        raise UserError(
            "the weights hold infinite values or none at all (NaN)",
            remedy="look at the loss of the training run; merge an earlier checkpoint",
        )
    num_rows, num_values = rows.shape
    quantized = np.empty((num_rows, num_row_bytes(kind, num_values)), dtype=np.uint8)
    written = _library().ggml_quantize_chunk(
        int(kind), rows.ctypes.data, quantized.ctypes.data, 0, num_rows, num_values, None
    )
    assert written == quantized.nbytes, f"{written} bytes were written, not {quantized.nbytes}"
    return quantized


def load_kernels(file: str | os.PathLike[str]) -> ctypes.CDLL:
    """The functions of ggml's C interface in a shared library, with their types.

    size_t ggml_quantize_chunk(enum ggml_type type, const float * src, void * dst, int64_t start,
    int64_t nrows, int64_t n_per_row, const float * imatrix), of ggml.h. Errors: `UserError` where
    the library cannot be loaded or hides them, or lays rows out differently than gguf.
    """
    try:
        library = ctypes.CDLL(os.fspath(file))
        row_size, quantize = library.ggml_row_size, library.ggml_quantize_chunk
    except (OSError, AttributeError) as error:
        raise UserError(
            f"llama.cpp's quantization cannot be called: {error}",
            where=os.fspath(file),
            remedy="install the version of xllamacpp that constraints.txt names, or set "
            "`merge.artefacts` to formats that need none: f16, q8_0",
        ) from error
    row_size.argtypes = (ctypes.c_int, ctypes.c_int64)
    row_size.restype = ctypes.c_size_t
    quantize.argtypes = (
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    )
    quantize.restype = ctypes.c_size_t
    for kind in KINDS:
        if row_size(int(kind), 256) != num_row_bytes(kind, 256):
            raise UserError(
                f"llama.cpp and the gguf package lay {kind.name} out differently",
                where=os.fspath(file),
                remedy="install the versions of xllamacpp and gguf that constraints.txt names",
            )
    return library


@cache
def _library() -> ctypes.CDLL:
    return load_kernels(xllamacpp.xllamacpp.__file__)
