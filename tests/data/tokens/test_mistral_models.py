from pathlib import Path

import pytest
from mistral_common.integrations.chat_templates.chat_templates import (
    convert_tokenizer_to_chat_template,
)
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from data.tokens.mistral_models import CONTROL_TOKENS, is_mistral_v7
from data.tokens.template import load_renderer
from tests.mistral_tokenizer import HUB_TEMPLATE, build_control_tokenizer, write_tekken


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer that has the control tokens and nothing else."""
    return build_control_tokenizer(*CONTROL_TOKENS)


def test_the_hubs_template_is_recognised_though_it_inserts_todays_date(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert tokenizer.chat_template == HUB_TEMPLATE
    dated = tokenizer.apply_chat_template([{"role": "user", "content": "Hi!"}], tokenize=False)
    assert "The current date is 20" in dated
    assert is_mistral_v7(tokenizer)


def test_mistral_commons_own_template_is_recognised(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    write_tekken(tmp_path / "tekken.json")
    tokenizer.chat_template = convert_tokenizer_to_chat_template(tmp_path / "tekken.json")
    assert "[AVAILABLE_TOOLS]" in tokenizer.chat_template
    assert is_mistral_v7(tokenizer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[INST]", "[INST] "),
        ("[SYSTEM_PROMPT]", "<<SYS>>"),
        ("eos_token", "eos_token + ' '"),
        ("{{- bos_token }}", "{{- bos_token }}{# [ARGS] #}"),
    ],
)
def test_another_template_is_not_taken_for_it(
    tokenizer: PreTrainedTokenizerBase, old: str, new: str
) -> None:
    tokenizer.chat_template = HUB_TEMPLATE.replace(old, new)
    assert tokenizer.chat_template != HUB_TEMPLATE
    assert not is_mistral_v7(tokenizer)
    with pytest.raises(UserError, match="marks no assistant turns"):
        load_renderer(tokenizer)


def test_the_control_tokens_tell_the_form() -> None:
    assert is_mistral_v7(build_control_tokenizer(*CONTROL_TOKENS, "more"))
    assert not is_mistral_v7(build_control_tokenizer("more", *CONTROL_TOKENS))
    assert not is_mistral_v7(
        build_control_tokenizer(*CONTROL_TOKENS[:17], "[ARGS]", *CONTROL_TOKENS[17:])
    )
    assert not is_mistral_v7(build_control_tokenizer(*CONTROL_TOKENS[:10], "</s>", "<s>"))
    # Its calls are written otherwise, though its template does not tell.
    assert not is_mistral_v7(build_control_tokenizer(*CONTROL_TOKENS, "[ARGS]"))


def test_a_tekken_of_another_version_is_not_taken_for_it(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    write_tekken(tmp_path / "tekken.json", version="v3")
    tokenizer.name_or_path = str(tmp_path)
    assert not is_mistral_v7(tokenizer)
    (tmp_path / "tekken.json").unlink()
    assert is_mistral_v7(tokenizer)


def test_a_model_of_the_form_without_a_template_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="the model has no chat template"):
        load_renderer(tokenizer)
