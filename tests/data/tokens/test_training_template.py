from pathlib import Path

import pytest
import trl
from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import get_training_chat_template

from configs.errors import UserError
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.training_template import TEMPLATES, load_training_template, own_template
from tests.tiny_model import CHAT_TEMPLATE, build_tiny_tokenizer

TRL_FOLDER = Path(trl.__file__).parent / "chat_templates"
TRL_NAMES = sorted(
    file.name.removesuffix("_training.jinja") for file in TRL_FOLDER.glob("*_training.jinja")
)
# Models whose own template tells thoughts otherwise than TRL's one (glm4moe, qwen3 …), takes calls
# otherwise (deepseekv3), or takes a turn as a list of parts only (llava_next).
NOT_ALIKE = {"deepseekv3", "glm4moe", "llava_next", "qwen3", "qwen3_5_nothink", "qwen3_5_think"}
NOT_ALIKE |= {"qwen3_6"}


def test_the_training_template_is_the_models_own_one_with_marks(tiny_checkpoint: Path) -> None:
    tokenizer = load_tokenizer(tiny_checkpoint)
    template = load_training_template(tokenizer)
    assert own_template(tokenizer) == CHAT_TEMPLATE
    assert "{% generation %}" not in CHAT_TEMPLATE
    assert template == (TEMPLATES / "smollm2.jinja").read_text()


def test_a_model_without_a_template_is_refused() -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="the model has no chat template"):
        load_training_template(tokenizer)


def test_of_several_templates_the_default_one_counts() -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = {"default": CHAT_TEMPLATE, "tool_use": "other"}
    assert "{% generation %}" in load_training_template(tokenizer)
    tokenizer.chat_template = {"tool_use": "other"}
    with pytest.raises(UserError, match="the model has no chat template"):
        load_training_template(tokenizer)


@pytest.mark.parametrize(
    "change",
    [
        ("named SmolLM", "named Ada"),
        ("message['content'] + ", "message['content'] | upper + "),
        ("+ '<|im_end|>' + '\n'", "+ '<|im_end|>'"),
        ("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>'"),
        ("{% if add", "{% if tools %}{{ tools }}{% endif %}{% if add"),
        ("message['content'] + ", "(message['tool_calls'] or message['content']) | string + "),
        ("{% for", "{{ raise_exception('never') }}{% for"),
    ],
)
def test_a_model_with_an_unknown_template_is_refused(change: tuple[str, str]) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace(*change)
    if tokenizer.chat_template == CHAT_TEMPLATE:
        pytest.fail(f"the change {change} changes nothing")
    with pytest.raises(UserError, match="no training template matches it") as caught:
        load_training_template(tokenizer)
    assert caught.value.remedy is not None
    assert "{% generation %}" in caught.value.remedy


@pytest.mark.parametrize("opening", ["{% generation %}", "{%- generation -%}", "{%generation%}"])
def test_a_template_with_marks_of_its_own_is_taken_as_it_is(opening: str) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = opening + "{{ messages }}{% endgeneration %}"
    assert load_training_template(tokenizer) == tokenizer.chat_template


@pytest.mark.parametrize("name", TRL_NAMES)
def test_a_template_that_trl_knows_gets_the_marks_that_trl_gives_it(name: str) -> None:
    tokenizer: PreTrainedTokenizerBase = build_tiny_tokenizer()
    tokenizer.chat_template = (TRL_FOLDER / f"{name}.jinja").read_text()
    if name in NOT_ALIKE:
        with pytest.raises(UserError, match="no training template matches it"):
            load_training_template(tokenizer)
    else:
        assert load_training_template(tokenizer) == get_training_chat_template(tokenizer)


def test_trl_ships_the_templates_where_they_are_looked_for() -> None:
    assert len(TRL_NAMES) > 25
