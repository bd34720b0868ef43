import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers

from configs.errors import UserError
from data.tokens.load_tokenizer import load_tokenizer
from tests.tiny_model import CHAT_TEMPLATE, build_tiny_tokenizer


@pytest.fixture
def own_copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A tiny checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def test_the_tokenizer_of_a_folder(tiny_checkpoint: Path) -> None:
    tokenizer = load_tokenizer(tiny_checkpoint)
    text = "  12 日本 <|im_end|>"
    assert tokenizer(text)["input_ids"] == build_tiny_tokenizer()(text)["input_ids"]
    assert (tokenizer.eos_token, tokenizer.pad_token_id) == ("<|im_end|>", 2)
    assert tokenizer.chat_template == CHAT_TEMPLATE


def test_a_tokenizer_without_a_padding_token_is_refused(own_copy: Path) -> None:
    file = own_copy / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["pad_token"]
    file.write_text(json.dumps(settings))
    with pytest.raises(UserError, match="the tokenizer names no padding token") as caught:
        load_tokenizer(own_copy)
    assert caught.value.where == str(file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").unlink(),
    ],
    ids=["no tokenizer", "broken tokenizer", "broken config", "no config"],
)
def test_a_folder_whose_tokenizer_cannot_be_loaded_is_told(
    own_copy: Path, damage: Callable[[Path], object]
) -> None:
    damage(own_copy)
    with pytest.raises(UserError, match="cannot load the model's tokenizer: ") as caught:
        load_tokenizer(own_copy)
    assert caught.value.where == str(own_copy)


@pytest.mark.parametrize(("model_type", "is_mended"), [("mistral3", True), ("llama", False)])
def test_the_known_fault_of_mistrals_tokenizer_is_put_right(
    own_copy: Path, model_type: str, is_mended: bool
) -> None:
    tokenizer = json.loads((own_copy / "tokenizer.json").read_text())
    # The library looks for the fault in vocabularies of more than 100,000 only.
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"<{number}>": number for number in range(len(vocabulary), 100_001)}
    (own_copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    (own_copy / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = load_tokenizer(own_copy)
    assert isinstance(loaded.backend_tokenizer.pre_tokenizer, pre_tokenizers.Sequence)
    pieces = loaded.backend_tokenizer.pre_tokenizer.pre_tokenize_str("camelCase")
    assert [piece for piece, _ in pieces] == (["camel", "Case"] if is_mended else ["camelCase"])


def test_a_tekken_beside_the_tokenizer_changes_nothing(own_copy: Path) -> None:
    before = load_tokenizer(own_copy)
    (own_copy / "tekken.json").write_text("{}")
    (own_copy / "config.json").write_text(json.dumps({"model_type": "mistral3"}))
    after = load_tokenizer(own_copy)
    assert after.chat_template == before.chat_template is not None
    assert after.get_vocab() == before.get_vocab()


def test_the_class_that_the_folder_names_does_not_change_how_digits_are_split(
    own_copy: Path,
) -> None:
    """SmolLM2's files on the hub name GPT-2's class, which splits digits in its own way."""
    file = own_copy / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"tokenizer_class": "GPT2Tokenizer"}
    file.write_text(json.dumps(settings))
    tokens = load_tokenizer(own_copy).tokenize("a  12")
    assert tokens == ["a", "ĠĠ", "1", "2"]


def test_a_template_that_stands_where_processors_look_is_found(own_copy: Path) -> None:
    (own_copy / "chat_template.jinja").unlink()
    assert load_tokenizer(own_copy).chat_template is None
    file = own_copy / "chat_template.json"
    file.write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    assert load_tokenizer(own_copy).chat_template == CHAT_TEMPLATE
    file.write_text(json.dumps({"other": 1}))
    assert load_tokenizer(own_copy).chat_template is None


def test_the_tokenizers_own_template_goes_before_the_processors(own_copy: Path) -> None:
    (own_copy / "chat_template.json").write_text(json.dumps({"chat_template": "other"}))
    assert load_tokenizer(own_copy).chat_template == CHAT_TEMPLATE


def test_loading_a_renderer_imports_nothing_heavy_beside_transformers() -> None:
    """Each worker process loads its own; TRL's functions alone would take three seconds."""
    program = (
        "import sys; import data.tokens.load_tokenizer, data.tokens.template; "
        "print({'datasets', 'pandas', 'trl.chat_template_utils', 'accelerate'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "set()"
