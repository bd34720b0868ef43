"""The tokenizer of a checkpoint folder, loaded in the one way that every stage shares."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from configs.errors import UserError


def load_tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tokenizer as its tokenizer.json has it, with the known faults of Mistral's files mended.

    `AutoTokenizer` is not asked: it takes three seconds to import, rebuilds some tokenizers from
    their vocabulary alone (SmolLM2's loses the splitting of digits), and beside a tekken.json
    chooses a class without a chat template.
    """
    try:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        # Mistral Small 3.1's tokenizer.json splits by a wrong pattern; transformers only warns.
        is_mistral3 = config.get("model_type") == "mistral3"
        options: dict[str, Any] = {"fix_mistral_regex": True} if is_mistral3 else {}
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(
            checkpoint, **options
        )
        if tokenizer.chat_template is None:
            tokenizer.chat_template = _processor_template(checkpoint)
    except (OSError, ValueError) as error:
        told = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot load the model's tokenizer: {told}",
            where=checkpoint,
            remedy="put the model's config.json, tokenizer.json and tokenizer_config.json there",
        ) from error
    if tokenizer.pad_token_id is None:
        raise UserError(
            "the tokenizer names no padding token",
            where=checkpoint / "tokenizer_config.json",
            remedy="set `pad_token` there to a token that no text contains",
        )
    return tokenizer


def _processor_template(checkpoint: Path) -> str | None:
    """The template that models with images, Mistral Small 3.1 among them, keep for a processor."""
    file = checkpoint / "chat_template.json"
    if not file.is_file():
        return None
    template = json.loads(file.read_text(encoding="utf-8")).get("chat_template")
    return template if isinstance(template, str) else None
