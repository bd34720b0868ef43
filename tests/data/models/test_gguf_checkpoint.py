from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BatchEncoding, PreTrainedTokenizerBase

from configs.errors import UserError
from configs.load import load_config
from data.cache import cache_folder
from data.models.gguf_checkpoint import convert_gguf
from data.models.model_source import resolve_checkpoint
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.training_template import load_training_template
from tests.full_disk import limited_file_size
from tests.tiny_gguf import write_tiny_gguf

DEMO = Path(__file__).parents[3] / "configs" / "demo-legal.yaml"
TEXTS = [
    "a  12",
    "a 12 b",
    "  7",
    "12345",
    "\n\n  3.14\t9",
    "x1y2",
    "naïve 日本 ٣٤ ½",
    " leading and trailing ",
    "it's, isn't: (1) [2]",
    "👩‍👩‍👧 e\u0301",
    "<|im_start|>user\n12<|im_end|>",
]


@pytest.fixture(scope="module")
def converted(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    file = write_tiny_gguf(tiny_checkpoint, folder / "tiny.gguf")
    (folder / "checkpoint").mkdir()
    convert_gguf(file, folder / "checkpoint")
    return folder / "checkpoint"


def test_weights_come_back_to_the_bit_as_bf16(tiny_checkpoint: Path, converted: Path) -> None:
    before = load_file(tiny_checkpoint / "model.safetensors")
    after = load_file(converted / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == torch.bfloat16
        assert torch.equal(after[name], tensor), name


def test_the_checkpoint_is_a_plain_one(tiny_checkpoint: Path, converted: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(converted)
    assert model.dtype == torch.bfloat16
    assert not hasattr(model.config, "quantization_config")
    tokens = torch.tensor([[1, 300, 12, 44, 2]])
    original = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, original(tokens).logits)


def test_the_tokenizer_is_the_one_that_was_converted(
    tiny_checkpoint: Path, converted: Path
) -> None:
    before, after = load_tokenizer(tiny_checkpoint), load_tokenizer(converted)
    for text in TEXTS:
        ids = after(text)["input_ids"]
        assert ids == before(text)["input_ids"], text
        assert after.decode(ids) == text
    assert (after.bos_token_id, after.eos_token_id, after.pad_token_id) == (1, 2, 2)
    assert after.chat_template == before.chat_template
    assert load_training_template(after) == load_training_template(before)


def test_a_gguf_with_another_pre_tokenizer_is_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    file = write_tiny_gguf(tiny_checkpoint, tmp_path / "tiny.gguf", pre_tokenizer="qwen2")
    with pytest.raises(UserError, match="GGUF with pre-tokenizer 'qwen2'") as caught:
        convert_gguf(file, tmp_path / "checkpoint")
    assert caught.value.where == str(file)
    assert not (tmp_path / "checkpoint").exists()


def test_a_full_disk_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    file = write_tiny_gguf(tiny_checkpoint, tmp_path / "tiny.gguf")
    with limited_file_size(50_000), pytest.raises(UserError, match=r"cannot write: .*too large"):
        convert_gguf(file, tmp_path / "checkpoint")


# The real model, where it has been fetched before.


@pytest.fixture(scope="module")
def smollm2() -> Path:
    source = load_config(DEMO).model.source
    assert source.kind == "package"
    file = cache_folder() / "files" / f"{source.file_sha256[:16]}-{Path(source.file).name}"
    if not file.exists():
        pytest.skip(f"SmolLM2 is not in the cache ({file}): `tunery prepare {DEMO}` fetches it")
    return resolve_checkpoint(load_config(DEMO).model)


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(smollm2)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a  12", ["a", "ĠĠ", "1", "2"]),
        ("a 12", ["a", "Ġ", "1", "2"]),
        ("in 2024.", ["in", "Ġ", "2", "0", "2", "4", "."]),
        ("    7", ["ĠĠĠĠ", "7"]),
    ],
)
def test_smollm2_splits_digits_one_by_one(
    smollm2_tokenizer: PreTrainedTokenizerBase, text: str, tokens: list[str]
) -> None:
    assert smollm2_tokenizer.tokenize(text) == tokens
    assert smollm2_tokenizer.decode(smollm2_tokenizer(text)["input_ids"]) == text


def test_smollm2_ends_and_pads_with_the_token_that_ends_a_turn(
    smollm2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert smollm2_tokenizer.eos_token_id == smollm2_tokenizer.pad_token_id == 2
    assert smollm2_tokenizer.convert_ids_to_tokens([0, 1, 2]) == [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
    ]


def test_smollm2_loads_as_bf16_and_answers(
    smollm2: Path, smollm2_tokenizer: PreTrainedTokenizerBase
) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == 134_515_008
    prompt = smollm2_tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": "The capital of France is"},
        ],
        continue_final_message=True,
        return_tensors="pt",
    )
    assert isinstance(prompt, BatchEncoding)
    with torch.no_grad():
        likeliest = int(model(**prompt).logits[0, -1].argmax())
    assert smollm2_tokenizer.decode([likeliest]) == " Paris"
