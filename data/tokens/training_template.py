"""Which chat template tells apart what the assistant says, for a model that is not Mistral's.

Chat templates say how a prompt looks; few mark the assistant's words. A training template is the
same template with `{% generation %}` marks, and has to render exactly what the model's own does.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"
MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
# What a template that does not expect something raises, by itself or from Python underneath.
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)
ANSWERED = [{"role": "user", "content": "Q 1"}, {"role": "assistant", "content": "A\n1"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up.",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"key": "<é>"}}}
# Conversations on which a training template must render exactly what the model's own one does.
PROBES: tuple[list[dict[str, Any]], ...] = (
    ANSWERED,
    [
        {"role": "system", "content": "S"},
        *ANSWERED,
        {"role": "user", "content": "Q 2"},
        {"role": "assistant", "content": "A 2"},
    ],
    [{"role": "user", "content": "é < & 'quoted' {{ braces }}"}],
    [
        {"role": "user", "content": "Q 1"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a1b2c3d4e", **CALL}]},
        {"role": "tool", "content": '{"found": 1}', "tool_call_id": "a1b2c3d4e"},
        {"role": "assistant", "content": "A 1"},
    ],
)


def own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The model's own chat template; of several named ones the default."""
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if not isinstance(own, str):
        raise UserError(
            "the model has no chat template",
            where=tokenizer.name_or_path,
            remedy="choose an instruct model, or add its chat_template.jinja to the folder",
        )
    return own


def load_training_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """A chat template with `{% generation %}` marks that renders what the model's own one does.

    Taken from the model, else from TRL's list, else from data/tokens/templates. A model with
    none of them is refused: a guessed mask trains on the wrong tokens without a sign of it.
    """
    own = own_template(tokenizer)
    if MARK.search(own):
        return own
    candidates = [_trl_templates().get(own)]
    candidates += [file.read_text(encoding="utf-8") for file in sorted(TEMPLATES.glob("*.jinja"))]
    for candidate in candidates:
        if candidate is not None and _renders_alike(tokenizer, own, candidate):
            return candidate
    raise UserError(
        "the model's chat template marks no assistant turns, and no training template matches it",
        where=tokenizer.name_or_path,
        remedy="put {% generation %} … {% endgeneration %} around the assistant's words and its "
        "end token in the model's chat_template.jinja",
    )


def render_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, Any]],
    *,
    template: str,
    tools: Sequence[dict[str, Any]] = (),
    add_generation_prompt: bool = False,
) -> str | None:
    """What `template` makes of `messages`; None where it does not take them."""
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        )
    except TEMPLATE_ERRORS:
        return None


@cache
def _trl_templates() -> dict[str, str]:
    """TRL's training templates by the template they stand in for.

    Read as the files that TRL ships, because its functions import torch, datasets and pandas.
    """
    folder = files("trl") / "chat_templates"
    trainings = [file for file in folder.iterdir() if file.name.endswith("_training.jinja")]
    return {
        (folder / file.name.replace("_training.jinja", ".jinja")).read_text(encoding="utf-8"): (
            file.read_text(encoding="utf-8")
        )
        for file in trainings
    }


def _renders_alike(tokenizer: PreTrainedTokenizerBase, own: str, candidate: str) -> bool:
    if render_text(tokenizer, ANSWERED, template=own) is None:
        return False
    for probe, tools, prompted in product(PROBES, ([], [TOOL]), (False, True)):
        texts = {
            render_text(
                tokenizer, probe, template=template, tools=tools, add_generation_prompt=prompted
            )
            for template in (own, candidate)
        }
        if len(texts) > 1:
            return False
    return True
