import ctypes.util
import re
from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import pytest

from configs.errors import UserError
from train.artefacts.ggml_kernels import KINDS, Floats, Kind, load_kernels, quantize_rows

# The largest error of normally distributed weights, of their norm; measured, plus a twentieth.
ERRORS = {
    Kind.Q4_K: 0.075,
    Kind.Q5_K: 0.038,
    Kind.Q6_K: 0.0187,
    Kind.Q8_0: 0.0057,
    Kind.Q5_0: 0.045,
    Kind.Q5_1: 0.040,
    Kind.F16: 0.00022,
    Kind.BF16: 0.00175,
}


@pytest.fixture(scope="module")
def weights() -> Floats:
    return np.random.default_rng(3).standard_normal((64, 1024), dtype=np.float32) * 0.02


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_read_back_independently_is_near_the_weights(
    kind: gguf.GGMLQuantizationType, weights: Floats
) -> None:
    read_back = gguf.quants.dequantize(quantize_rows(weights, kind), kind)
    error = np.linalg.norm(read_back - weights) / np.linalg.norm(weights)
    # Far smaller would be another format's bytes.
    assert ERRORS[kind] / 1.2 < error < ERRORS[kind]


def test_eight_bits_are_the_bytes_of_the_gguf_package(weights: Floats) -> None:
    np.testing.assert_array_equal(
        quantize_rows(weights, Kind.Q8_0), gguf.quants.quantize(weights, Kind.Q8_0)
    )


def test_threads_do_not_disturb_each_other(weights: Floats) -> None:
    pieces = np.split(weights, 8)
    with ThreadPoolExecutor(4) as pool:
        apart = list(pool.map(lambda rows: quantize_rows(rows, Kind.Q4_K), pieces))
    np.testing.assert_array_equal(np.concatenate(apart), quantize_rows(weights, Kind.Q4_K))


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_weights_that_are_no_numbers_are_refused(value: float, weights: Floats) -> None:
    weights = weights.copy()
    weights[3, 5] = value
    with pytest.raises(UserError, match="infinite values or none at all"):
        quantize_rows(weights, Kind.Q6_K)


def test_a_library_without_the_functions_is_named() -> None:
    library = ctypes.util.find_library("c")
    assert library is not None
    with pytest.raises(UserError, match=r"cannot be called: .*ggml_row_size") as caught:
        load_kernels(library)
    assert caught.value.where == library


def test_a_library_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(UserError, match=re.escape("cannot be called: ")):
        load_kernels("no-such-library.so")


def test_another_layout_of_rows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import xllamacpp

    monkeypatch.setitem(gguf.GGML_QUANT_SIZES, Kind.Q5_K, (256, 177))
    with pytest.raises(UserError, match="lay Q5_K out differently"):
        load_kernels(xllamacpp.xllamacpp.__file__)
