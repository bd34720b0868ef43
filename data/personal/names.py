"""Names of people, which no pattern tells from other words: Presidio over a spaCy model.

A module of its own, for its libraries come with the extra `tunery[presidio]` and load for seconds.
"""

import re
from collections.abc import Iterator, Sequence

import spacy
from presidio_analyzer import AnalyzerEngine, BatchAnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import SpacyRecognizer
from spacy.language import Language

from configs.errors import UserError
from data.personal.patterns import Extent

# spaCy's own English models, which its command installs; the best one that is there is used.
MODELS = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")
NOT_NEEDED = ["tagger", "parser", "senter", "attribute_ruler", "lemmatizer"]
MAX_CHARACTERS = 20_000
TEXTS_PER_BATCH = 64

# The model also calls commands, abbreviations and parts of the body people. English names begin
# with a capital and are made of letters; a word of capitals alone is more often an abbreviation.
NAME = re.compile(r"(?=\S*[a-z])[A-ZÀ-ÖØ-Þ][^\W\d_]*(?:[ '’.-]{1,2}[^\W\d_]+){0,5}\.?")


class NameFinder:
    """Finds names in English texts, in milliseconds a text: a thousand times a pattern's time."""

    def __init__(self, nlp: Language | None = None) -> None:
        """nlp: a spaCy pipeline that marks PERSON; the best installed model where absent."""
        engine = SpacyNlpEngine(ner_model_configuration=NerModelConfiguration(labels_to_ignore=[]))
        # Given, not loaded: Presidio would download a model that it misses.
        engine.nlp = {"en": nlp or _load_model()}
        registry = RecognizerRegistry(
            recognizers=[SpacyRecognizer(supported_entities=["PERSON"])], supported_languages=["en"]
        )
        analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
        self._analyzer = BatchAnalyzerEngine(analyzer)

    def find(self, texts: Sequence[str]) -> list[list[Extent]]:
        """For each text the stretches that are names, in characters."""
        pieces = [
            (row, start, piece) for row, text in enumerate(texts) for start, piece in _cut(text)
        ]
        results = self._analyzer.analyze_iterator(
            [piece for _, _, piece in pieces],
            language="en",
            batch_size=TEXTS_PER_BATCH,
            entities=["PERSON"],
        )
        names: list[list[Extent]] = [[] for _ in texts]
        for (row, start, piece), found in zip(pieces, results, strict=True):
            names[row] += [
                (start + result.start, start + result.end)
                for result in found
                if NAME.fullmatch(piece[result.start : result.end])
            ]
        return names


def _load_model() -> Language:
    for name in MODELS:
        if spacy.util.is_package(name):
            return spacy.load(name, exclude=NOT_NEEDED)
    raise UserError(
        "looking for names needs a spaCy model of English, and none is installed",
        where="data.personal_data.kinds: name",
        remedy="python -m spacy download en_core_web_lg",
    )


def _cut(text: str) -> Iterator[tuple[int, str]]:
    """Pieces of at most MAX_CHARACTERS with their starts, cut at white space where there is any.

    A model's memory grows with the text's length.
    """
    start = 0
    while len(text) - start > MAX_CHARACTERS:
        end = text.rfind(" ", start + 1, start + MAX_CHARACTERS)
        end = start + MAX_CHARACTERS if end < 0 else end
        yield start, text[start:end]
        start = end
    yield start, text[start:]
