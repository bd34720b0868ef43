"""Legal rows: a licence notice as it stands in source files, answered by SPDX id and category.

The notices are the detection rules of ScanCode, which the wheel of `licensedcode-data` carries as
text files with a YAML header, beside one file per licence.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from data.conversation import Conversation, ReadRows, Reject, question_and_answer, text_of
from data.packages import fetch_wheel, read_wheel
from data.sources.repeats import drop_repeats

PACKAGE = "licensedcode_data"
VERSION = "32.1.0"
WHEEL_SHA256 = "18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96"
FOLDER = "licensedcode/data"

QUESTION = "Licence notice: {notice} Name the licence (SPDX id) and its category."
LICENCE = "CC-BY-4.0"
ATTRIBUTION = (
    "Copyright (c) nexB Inc. and others. All rights reserved. ScanCode is a trademark of nexB Inc. "
    "SPDX-License-Identifier: CC-BY-4.0, https://creativecommons.org/licenses/by/4.0/legalcode. "
    "See https://github.com/nexB/scancode-toolkit and https://aboutcode.org. "
    "Changed: comment marks removed, notices turned into questions"
)
MIN_WORDS = 12
MAX_WORDS = 70
MIN_NOTICES = 5
YES = (True, "yes")

# Some headers end in "--- " or in "---\r": a plain "\n---\n" misses them.
FENCE = re.compile(r"^---[ \t\r]*$\n?", re.MULTILINE)
IS_NOTICE = re.compile(r"^is_license_notice:\s*(?:yes|true)\s*$", re.MULTILINE)
# Comment marks at either end of a line; the second pattern reads the line backwards. Each character
# is matched on its own, so a ruler of a thousand stars costs a thousand steps and not 2 to the
# thousand. A lone slash, dash or equals sign stays: "/usr/share/…", "http://…/eulas/".
OPENING = re.compile(
    r"""^(?:[\s*;|~#]|/(?=[/*])|(?<=[/*])/|<!--|\.\\"|-(?=-)|(?<=-)-|=(?==)|(?<==)="""
    r"""|[%>](?=[%>\s]|$)|(?:\.|dnl|rem)(?=\s|$))*""",
    re.IGNORECASE,
)
CLOSING = re.compile(r"^(?:[\s*|#]|/(?=\*)|//(?=\s)|>(?=--)|-(?=-)|(?<=-)-|=(?==)|(?<==)=)*")


class _Notice(NamedTuple):
    text: str
    answer: str


def load() -> ReadRows:
    """Fetch the pinned package and read its rows; raises UserError as `fetch_wheel` does."""
    wheel = fetch_wheel(package=PACKAGE, version=VERSION, sha256=WHEEL_SHA256)
    return parse_notices(
        rules=read_wheel(wheel, under=f"{FOLDER}/rules", suffix=".RULE"),
        licences=read_wheel(wheel, under=f"{FOLDER}/licenses", suffix=".LICENSE"),
    )


def parse_notices(*, rules: Mapping[str, bytes], licences: Mapping[str, bytes]) -> ReadRows:
    """The rows of ScanCode's rule files, each read as one row, with the licences they name.

    Kept are notices of one licence with an SPDX id, of 12 to 70 words, once each, of licences with
    at least five of them. Row ids are the rule files' names. A rule file that cannot be read is a
    reject; a licence file that cannot be read raises ValueError, KeyError or YAMLError.
    """
    answers = _read_answers(licences)
    rejects: list[Reject] = []
    dropped: Counter[str] = Counter()
    rows: list[Conversation] = []
    for path, content in rules.items():
        try:
            notice = _read_notice(content, answers)
        except (ValueError, YAMLError) as error:
            rejects.append(Reject(where=path, reason=" ".join(str(error).split())))
            continue
        if isinstance(notice, str):
            dropped[notice] += 1
            continue
        id = path.rsplit("/", 1)[-1]
        question = QUESTION.format(notice=notice.text)
        rows.append(question_and_answer(question, notice.answer, id=id))
    unique = drop_repeats(rows)
    kept = _drop_rare(unique.rows)
    rare = Counter({f"licence with fewer than {MIN_NOTICES} notices": len(unique.rows) - len(kept)})
    return ReadRows(
        conversations=kept,
        num_read=len(rules),
        rejects=rejects,
        dropped=dropped + unique.dropped + rare,
    )


def _read_notice(content: bytes, answers: Mapping[str, str]) -> _Notice | str:
    """The notice of a rule file, or the name of the rule that drops it.

    Parsing a YAML header costs 0.3 ms, so that is left for the notices of the right length.
    """
    header, body = _split(content)
    if not IS_NOTICE.search(header):
        return "not a licence notice"
    text = _clean(body)
    if not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
        return f"not {MIN_WORDS} to {MAX_WORDS} words"
    fields = _fields(header)
    if fields.get("is_deprecated") in YES:
        return "deprecated rule"
    key = str(fields.get("license_expression", "")).lower()
    if len(key.split()) > 1:
        return "several licences"
    if key not in answers:
        raise ValueError(f"no licence file for {key!r}")
    return _Notice(text=text, answer=answers[key]) if answers[key] else "licence without an SPDX id"


def _read_answers(licences: Mapping[str, bytes]) -> dict[str, str]:
    """The answer, `SPDX id (category)`, by ScanCode's key of the licence; empty without an SPDX id.

    To licences that SPDX does not list, ScanCode gives ids of its own that start with LicenseRef.
    """
    answers: dict[str, str] = {}
    for content in licences.values():
        fields = _fields(_split(content)[0])
        spdx_id = fields.get("spdx_license_key", "LicenseRef")
        listed = not spdx_id.startswith("LicenseRef") and fields.get("is_exception") not in YES
        answers[fields["key"]] = f"{spdx_id} ({fields['category']})" if listed else ""
    return answers


def _drop_rare(rows: list[Conversation]) -> list[Conversation]:
    sizes = Counter(text_of(row.messages[-1]) for row in rows)
    return [row for row in rows if sizes[text_of(row.messages[-1])] >= MIN_NOTICES]


def _split(content: bytes) -> tuple[str, str]:
    """The YAML header between the two fences, and the text after them."""
    parts = FENCE.split(content.decode(), maxsplit=2)
    if len(parts) != 3 or parts[0].strip():
        raise ValueError("no header between two --- lines")
    return parts[1], parts[2]


def _fields(header: str) -> dict[str, Any]:
    fields = YAML(typ="safe", pure=True).load(header)
    if not isinstance(fields, dict):
        raise ValueError("the header is not a YAML mapping")
    return fields


def _clean(body: str) -> str:
    """The notice on one line, without comment marks and ScanCode's {{required phrase}} marks."""
    lines = [OPENING.sub("", line) for line in body.splitlines()]
    lines = [CLOSING.sub("", line[::-1])[::-1] for line in lines]
    return " ".join(" ".join(lines).replace("{{", " ").replace("}}", " ").split())
