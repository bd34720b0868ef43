import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.tekken_check import check_token_ids, load_tekken
from data.tokens.template import load_renderer
from tests.tiny_model import build_tiny_tokenizer

# How Mistral Small 3.1's own tokenizer.json splits text.
WRONG_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def checkpoint(mistral_checkpoint: Path) -> Path:
    return mistral_checkpoint


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(checkpoint)


@pytest.fixture
def wrongly_split(tokenizer: PreTrainedTokenizerBase) -> Iterator[Tokenizer]:
    """The tokenizer as the release's own file has it."""
    backend: Tokenizer = tokenizer.backend_tokenizer
    right = backend.pre_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WRONG_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    yield backend
    backend.pre_tokenizer = right


def test_a_tokenizer_that_splits_otherwise_is_refused(
    wrongly_split: Tokenizer,
    tokenizer: PreTrainedTokenizerBase,
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    for own in (load_tekken(checkpoint), None):
        with pytest.raises(UserError, match="splits text otherwise than Mistral's own") as caught:
            check_token_ids(wrongly_split, own, tmp_path)
        assert caught.value.where == str(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="splits text otherwise than Mistral's own"):
        load_renderer(tokenizer)


def test_the_right_tokenizer_passes_with_and_without_a_tekken(
    tokenizer: PreTrainedTokenizerBase, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for own in (load_tekken(checkpoint), None):
        check_token_ids(tokenizer.backend_tokenizer, own, checkpoint)
    assert caplog.text == ""


def test_ids_of_another_vocabulary_cannot_be_compared_without_its_tekken(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = build_tiny_tokenizer().backend_tokenizer
    with caplog.at_level(logging.WARNING):
        check_token_ids(other, None, tmp_path)
    assert "without a tekken.json the token ids cannot be compared" in caplog.text
    with pytest.raises(UserError, match="splits text otherwise than Mistral's own"):
        check_token_ids(other, load_tekken(checkpoint), tmp_path)


def test_a_broken_tekken_is_told(tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text('{"config": {"version": "v99"}}')
    with pytest.raises(UserError, match="cannot read Mistral's own tokenizer") as caught:
        load_tekken(tmp_path)
    assert caught.value.where == str(tmp_path / "tekken.json")
    assert load_tekken(tmp_path / "none") is None
