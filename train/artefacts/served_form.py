"""Tokenizer and template as whoever serves a checkpoint reads them, so that prompts are training's.

Loaders differ: one rebuilds a tokenizer from its vocabulary alone, one prefers a tekken.json and
then knows no template, one looks for the template in a processor's file. A folder in the served
form leaves them one way only.
"""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.mistral_models import is_mistral_v7

MISTRAL_V7_TEMPLATE = Path(__file__).parent / "templates" / "mistral_v7.jinja"
TEMPLATE_FILE = "chat_template.jinja"
# A tekken.json makes some loaders take another tokenizer, which knows no template; the other holds
# a template that some read and some do not.
HIDDEN_FILES = ("tekken.json", "chat_template.json")


def served_template(checkpoint: Path) -> str:
    """The template that lays prompts out as training did.

    Mistral's v7 form has one of this project's own: the hub's writes today's date into every prompt
    without a system turn, and takes no tools. Errors: `UserError` where there is none.
    """
    tokenizer = load_tokenizer(checkpoint)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str) or not ("{%" in template or "{{" in template):
        raise UserError(
            "the checkpoint has no chat template, so what the model expects is unknown",
            where=checkpoint,
            remedy="put the chat_template.jinja of the model's page there",
        )
    return MISTRAL_V7_TEMPLATE.read_text("utf-8") if is_mistral_v7(tokenizer) else template


def write_served_form(checkpoint: Path, folder: Path, *, template: str) -> None:
    """Put tokenizer and template of `checkpoint` into `folder`, in the place of what is there."""
    tokenizer = load_tokenizer(checkpoint)
    for name in HIDDEN_FILES:
        (folder / name).unlink(missing_ok=True)
    _replace(folder / TEMPLATE_FILE, template)
    _write_tokenizer(tokenizer, checkpoint, folder)


def _write_tokenizer(tokenizer: PreTrainedTokenizerBase, checkpoint: Path, folder: Path) -> None:
    file = checkpoint / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    config.pop("chat_template", None)
    if not (checkpoint / "tokenizer.model").exists():
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        _replace(folder / "tokenizer.json", tokenizer.backend_tokenizer.to_str())
    _replace(folder / "tokenizer_config.json", json.dumps(config, indent=2))


def _replace(file: Path, text: str) -> None:
    """Write in the place of a link, not through it."""
    file.unlink(missing_ok=True)
    file.write_text(text, encoding="utf-8")
