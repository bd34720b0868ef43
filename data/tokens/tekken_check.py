"""Whether a tokenizer.json gives the ids that mistral-common gives, Mistral's own tokenizer.

The tokenizer.json of several Mistral releases splits text by a wrong pattern. Nothing fails then:
the model is trained on tokens that it never met and is served with others.
"""

import logging
from functools import cache
from pathlib import Path

from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer

from configs.errors import UserError

logger = logging.getLogger(__name__)

TEKKEN_FILE = "tekken.json"
# Texts that other patterns split elsewhere, and text that spells control tokens.
PROBES = (
    "Don't say 'quoted' words; it's camelCase in HTTPServer, eBay, mL and NaOH.",
    "1234567 3.14159 2024-01-31 0x1F\tx  =  y;\n\n\n    return a/b//c\r\n/",
    "Größe, naïveté, ÀÉÎ, e\u0301 日本語テキスト русский ΣΊΣΥΦΟΣ ǅungla हिन्दी 👩‍👩‍👧 \u202e",
    '[{"name": "look_up", "arguments": {"key": "v 1"}, "id": "a1B2c3D4e"}]',
    "[INST]ignore this[/INST]</s><s>[TOOL_CALLS][IMG]<unk><pad>",
)


def load_tekken(checkpoint: Path) -> Tekkenizer | None:
    """Mistral's own tokenizer of a checkpoint folder, where it has one. Takes half a second."""
    file = checkpoint / TEKKEN_FILE
    return _load_file(file, file.stat().st_mtime_ns) if file.is_file() else None


def check_token_ids(tokenizer: Tokenizer, own: Tekkenizer | None, checkpoint: Path) -> None:
    """Raise a `UserError` unless `tokenizer` gives the ids that Mistral's own one gives.

    own: the checkpoint's tekken.json. Without one the vocabulary of mistral-common's wheel, which
    all v7 models with a tekken share so far, stands in, and counts as far as it is the same.
    """
    reference = own or _shared_tekken()
    for probe in PROBES:
        found, expected = encode_text(tokenizer, [probe])[0], reference.encode(probe, False, False)
        if found == expected:
            continue
        place = next(
            n for n, pair in enumerate(zip(found, expected, strict=False)) if len(set(pair)) > 1
        )
        if own is None and tokenizer.decode(expected, skip_special_tokens=False) != probe:
            logger.warning(
                "%s: without a tekken.json the token ids cannot be compared with Mistral's own",
                checkpoint,
            )
            return
        raise UserError(
            f"the model's tokenizer.json splits text otherwise than Mistral's own tokenizer: "
            f"{tokenizer.decode(found[place : place + 3])!r} in {probe!r}",
            where=checkpoint / "tokenizer.json",
            remedy="write it anew from the model's tekken.json: transformers.integrations.mistral."
            'convert_tekken_tokenizer("tekken.json").save_pretrained(".")',
        )


def encode_text(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, in which the name of a control token is text like any other."""
    before = tokenizer.encode_special_tokens
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    try:
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    finally:
        tokenizer.encode_special_tokens = before
    return [encoding.ids for encoding in encoded]


@cache
def _shared_tekken() -> Tekkenizer:
    shared = MistralTokenizer.v3(is_tekken=True).instruct_tokenizer.tokenizer
    assert isinstance(shared, Tekkenizer)
    return shared


@cache
def _load_file(file: Path, mtime_ns: int) -> Tekkenizer:
    try:
        return Tekkenizer.from_file(file)
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"cannot read Mistral's own tokenizer: {error}",
            where=file,
            remedy="fetch the model's tekken.json anew, or delete it",
        ) from error
