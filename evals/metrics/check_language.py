"""Whether an answer is written in the language that was asked for."""

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from evals.metrics.fences import unfenced

# Few languages to choose from make short answers safe to tell apart.
LANGUAGES = (
    "cs",
    "da",
    "de",
    "en",
    "es",
    "fi",
    "fr",
    "hu",
    "it",
    "nl",
    "pl",
    "pt",
    "ro",
    "sv",
    "tr",
)


def language(text: str, *, code: str) -> str:
    """The text is in this language (ISO 639-1), as py3langid tells it among `LANGUAGES`."""
    if code not in LANGUAGES:
        raise ValueError(f"{code!r} is none of {', '.join(LANGUAGES)}")
    bare = unfenced(text)
    if not any(character.isalpha() for character in bare):
        return "no words"
    found, _ = _identifier().classify(bare)
    return "" if found == code else f"written in {found}, not in {code}"


@cache
def _identifier() -> LanguageIdentifier:
    """Loaded at the first use: half a second."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return identifier
