"""The chat templates that artefacts and checkpoints carry with them."""

import json
from collections.abc import Mapping
from pathlib import Path

from gguf import GGUFReader

from configs.errors import UserError

TEMPLATE_FIELD = "tokenizer.chat_template"
TEMPLATE_FILE = "chat_template.jinja"


def gguf_template(file: Path) -> str:
    """The template inside an artefact, empty where it has none. Errors: `UserError`."""
    try:
        field = GGUFReader(file).fields.get(TEMPLATE_FIELD)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the artefact: {error}", where=file, remedy="run `tunery merge` again"
        ) from error
    return "" if field is None else str(field.contents())


def checkpoint_template(folder: Path) -> str:
    """The template as transformers looks for it: in a file of its own, else in the tokenizer's."""
    own = folder / TEMPLATE_FILE
    if own.is_file():
        return own.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    told: Mapping[str, object] = (
        json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    )
    template = told.get("chat_template")
    return template if isinstance(template, str) else ""
