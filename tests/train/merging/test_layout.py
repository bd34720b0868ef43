import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.errors import UserError
from train.merging.layout import read_layout

TENSORS = {
    "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "a": torch.arange(4, dtype=torch.float32),
    "scalar": torch.tensor(3, dtype=torch.int64),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    return tmp_path / "x.safetensors"


def test_every_tensor_is_found_where_it_lies(file: Path) -> None:
    content = file.read_bytes()
    layout = read_layout(file)
    assert [tensor.start for tensor in layout] == sorted(tensor.start for tensor in layout)
    assert {tensor.name for tensor in layout} == TENSORS.keys()
    for tensor in layout:
        expected = load_file(file)[tensor.name]
        assert tensor.shape == tuple(expected.shape)
        stored = torch.frombuffer(
            bytearray(content[tensor.start : tensor.stop]), dtype=expected.dtype
        )
        assert torch.equal(stored.reshape(expected.shape), expected)


def damage_none(content: bytes) -> bytes:
    return b""


def damage_header_length(content: bytes) -> bytes:
    return struct.pack("<Q", 2**40) + content[8:]


def damage_cut(content: bytes) -> bytes:
    return content[:-3]


def damage_json(content: bytes) -> bytes:
    return content[:9] + b"{" + content[10:]


def damage_offsets(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["a"]["data_offsets"][0] += 1
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


@pytest.mark.parametrize(
    "damage", [damage_none, damage_header_length, damage_cut, damage_json, damage_offsets]
)
def test_a_damaged_file_is_told(file: Path, damage: object) -> None:
    assert callable(damage)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"(?s)not a whole safetensors file.*x\.safetensors"):
        read_layout(file)
