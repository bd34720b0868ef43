from pathlib import Path

import gguf
import numpy as np
import pytest

from configs.errors import UserError
from tests.train.artefacts.whole_gguf import write_whole_gguf
from train.artefacts.gguf_header import pack_header, read_header, replace_fields, text_field


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole_gguf(tmp_path_factory.mktemp("whole") / "whole.gguf", num_layers=2)


def test_it_reads_what_the_gguf_package_reads(whole: Path) -> None:
    header, reader = read_header(whole), gguf.GGUFReader(whole)
    told = {name: field for name, field in reader.fields.items() if name[:5] != "GGUF."}
    assert header.fields.keys() == told.keys()
    for name, field in header.fields.items():
        assert field.kind == told[name].types[0]
        if field.kind != gguf.GGUFValueType.ARRAY:
            assert field.value == told[name].contents()
    for ours, theirs in zip(header.tensors, reader.tensors, strict=True):
        assert (ours.name, ours.kind) == (theirs.name, theirs.tensor_type)
        assert ours.shape[::-1] == tuple(theirs.shape)
        assert (ours.offset, ours.num_bytes) == (theirs.data_offset, theirs.n_bytes)


def test_packed_again_it_is_the_same_bytes(whole: Path) -> None:
    packed = pack_header(read_header(whole))
    assert packed == whole.read_bytes()[: len(packed)]
    assert len(packed) == read_header(whole).tensors[0].offset


@pytest.mark.parametrize("num_bytes", [3, 200, -1])
def test_a_file_that_is_cut_is_refused(num_bytes: int, whole: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[:num_bytes])
    with pytest.raises(UserError, match="cannot be read as GGUF"):
        read_header(cut)


def test_another_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGML" + bytes(100))
    with pytest.raises(UserError, match="its first bytes are 0x4c4d4747"):
        read_header(other)


@pytest.mark.parametrize("num_letters", range(1, 34))
def test_metadata_are_set_in_place(num_letters: int, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    values = np.arange(8, dtype=np.float32)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("n" * num_letters)
    writer.add_string("tokenizer.ggml.pre", "pixtral")
    writer.add_tensor("output_norm.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    size = file.stat().st_size
    replace_fields(file, {"tokenizer.ggml.pre": text_field("tekken")})
    assert file.stat().st_size == size
    reader = gguf.GGUFReader(file)
    assert reader.fields["tokenizer.ggml.pre"].contents() == "tekken"
    assert reader.fields["general.name"].contents() == "n" * num_letters
    np.testing.assert_array_equal(reader.tensors[0].data, values)
