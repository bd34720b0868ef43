import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from configs.errors import UserError
from serve.llama_scorer import open_gguf
from tests.conversations import chat
from train.artefacts.gguf import (
    check_template,
    embedded_template,
    gguf_disk_bytes,
    make_gguf,
)
from train.artefacts.gguf_header import read_header
from train.artefacts.gguf_view import clean_view
from train.artefacts.served_form import MISTRAL_V7_TEMPLATE

TEMPLATE = MISTRAL_V7_TEMPLATE.read_text(encoding="utf-8")
# What a splitting by another pattern looks like in a tokenizer.json.
WRONG_PATTERN = r"\w+|\s+|[^\w\s]+"


@pytest.fixture
def copied(mistral3_with_tokenizer: Path, tmp_path: Path) -> Path:
    """The checkpoint in a folder that a test may change."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(mistral3_with_tokenizer, folder)
    return folder


def test_the_template_in_the_file_is_a_text(mistral3_gguf: Path) -> None:
    assert embedded_template(mistral3_gguf) == TEMPLATE
    assert "{%" in TEMPLATE


def test_a_mistral3_with_a_tekken_beside_is_converted(mistral3_gguf: Path) -> None:
    header = read_header(mistral3_gguf)
    assert header.architecture == "llama"
    assert header.fields["tokenizer.ggml.pre"].value == "tekken"
    assert {"output.weight", "token_embd.weight"} < {tensor.name for tensor in header.tensors}
    assert not [tensor.name for tensor in header.tensors if tensor.name.startswith(("v.", "mm."))]


def test_prompt_tokens_grow_with_the_prompt(mistral3_gguf: Path) -> None:
    with open_gguf(mistral3_gguf, num_threads=1, context_length=512) as llama:
        sizes = [llama.num_prompt_tokens(chat("word " * number)) for number in (1, 20, 60)]
    assert sizes == sorted(sizes) and sizes[2] - sizes[1] == 40


def test_a_k_format_is_made_without_leftovers(
    mistral3_with_tokenizer: Path, mistral3_gguf: Path, tmp_path: Path
) -> None:
    file, scratch = tmp_path / "out" / "small.gguf", tmp_path / "scratch"
    file.parent.mkdir()
    scratch.mkdir()
    make_gguf(mistral3_with_tokenizer, file, number_format="q4_k_m", name="tiny", scratch=scratch)
    assert list(file.parent.iterdir()) == [file] and not list(scratch.iterdir())
    header = read_header(file)
    assert header.fields["general.file_type"].value == gguf.LlamaFileType.MOSTLY_Q4_K_M
    # The hub's own, in chat_template.json alone, is known as that of v7, which has a better one.
    assert embedded_template(file) == TEMPLATE
    needed = gguf_disk_bytes(mistral3_with_tokenizer, number_format="q4_k_m")
    # F16 takes as much as the copy in BF16 that was there meanwhile.
    assert 0 <= needed - mistral3_gguf.stat().st_size - file.stat().st_size < 2**25


def test_the_size_that_is_told_is_enough(
    mistral3_with_tokenizer: Path, mistral3_gguf: Path
) -> None:
    needed = gguf_disk_bytes(mistral3_with_tokenizer, number_format="f16")
    assert 0 <= needed - mistral3_gguf.stat().st_size < 2**25


def test_a_tekken_alone_is_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        make_gguf(copied, tmp_path / "x.gguf", number_format="f16", name="x")
    assert not (tmp_path / "x.gguf").exists()


def test_a_checkpoint_without_a_template_is_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "chat_template.json").unlink()
    with pytest.raises(UserError, match="no chat template"):
        make_gguf(copied, tmp_path / "x.gguf", number_format="f16", name="x")


def test_the_converter_sees_what_it_reads_rightly(copied: Path) -> None:
    tokenizer = json.loads((copied / "tokenizer.json").read_text())
    right = json.dumps(tokenizer["pre_tokenizer"])
    (split,) = (one for one in tokenizer["pre_tokenizer"]["pretokenizers"] if "pattern" in one)
    split["pattern"] = {"Regex": WRONG_PATTERN}
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((copied / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "LlamaTokenizerFast", "chat_template": "{{ 'old' }}"}
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    config = json.loads((copied / "config.json").read_text())
    # Only folders of earlier versions are known to have the wrong pattern.
    (copied / "config.json").write_text(json.dumps(config | {"transformers_version": "4.50.0"}))
    before = {file.name: file.read_bytes() for file in copied.iterdir()}
    with clean_view(copied, chat_template=TEMPLATE) as (view, template, splitting):
        assert (template, splitting) == (TEMPLATE, "tekken")
        assert not (view / "tekken.json").exists()
        assert not (view / "chat_template.json").exists()
        assert (view / "chat_template.jinja").read_text() == TEMPLATE
        seen = json.loads((view / "tokenizer_config.json").read_text())
        assert seen["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert "chat_template" not in seen
        mended = json.loads((view / "tokenizer.json").read_text())["pre_tokenizer"]
        assert json.dumps(mended) == right
        assert (view / "model-00001-of-00002.safetensors").is_symlink()
    assert not view.exists()
    assert before == {file.name: file.read_bytes() for file in copied.iterdir()}


def test_a_tokenizer_that_the_converter_does_not_know_is_told(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="BPE pre-tokenizer was not recognized") as caught:
        make_gguf(tiny_checkpoint, tmp_path / "x.gguf", number_format="q6_k", name="x")
    assert caught.value.where == str(tiny_checkpoint)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("template", ["mistral-v7-tekken", None])
def test_the_name_of_a_template_is_none(template: str | None, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("output_norm.weight", np.zeros(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match=template or "no chat template"):
        check_template(tmp_path / "x.gguf", TEMPLATE)
