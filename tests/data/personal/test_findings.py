"""Each kind of personal data, what only looks like it, and what is shown of it."""

import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stdnum import luhn

from configs.data_schema import PersonalDataKind
from configs.errors import UserError
from data.personal.findings import PLACEHOLDERS, Finding, PersonalDataFinder, mask, redact

KINDS: tuple[PersonalDataKind, ...] = ("email", "phone", "ssn", "card", "iban", "medical_record")

FOUND: dict[PersonalDataKind, list[tuple[str, str]]] = {
    "email": [
        ("Write to jane.doe+lists@mail.example.com.", "jane.doe+lists@mail.example.com"),
        ("<JSEWARD@ACM.ORG>", "JSEWARD@ACM.ORG"),
        ("mailto:o'brien@example.ie?subject=x", "o'brien@example.ie"),
        ("Address=jörg@müller.de,", "jörg@müller.de"),
        ("see a@xn--mller-kva.de", "a@xn--mller-kva.de"),
    ],
    "phone": [
        ("call (617) 542-5942 for details", "(617) 542-5942"),
        ("317-274-5905", "317-274-5905"),
        ("at 650.417.7500.", "650.417.7500"),
        ("or 1-800-548-4725, ", "1-800-548-4725"),
        ("Phone: +44 1223 334714.", "+44 1223 334714"),
        ("+49 (0)89 636-48018", "+49 (0)89 636-48018"),
        ("+420 241 722 540", "+420 241 722 540"),
        ('"E164PhoneNumber": "+12065550101"', "+12065550101"),
        ("Tel.: 0845 155 2455 Email", "0845 155 2455"),
        ("Tél : 01 42 68 53 00", "01 42 68 53 00"),
        ("her mobile number is 2065550100", "2065550100"),
        ("fax: 781 863-1739)", "781 863-1739"),
        ("TEL: (212-254-5093)", "212-254-5093"),
        ("call me at 867-5309", "867-5309"),
        ("or dial 01 42 68 53 00", "01 42 68 53 00"),
        ("the made-up (555) 123-4567", "(555) 123-4567"),
        # What follows is another number.
        ("+1 607 256 7372 2001-05-12", "+1 607 256 7372"),
    ],
    "ssn": [
        ("His number, 536-90-4399, was", "536-90-4399"),
        ("SSN: 536 90 4399", "536 90 4399"),
        ("social security number is 536904399", "536904399"),
        ("ITIN 912-70-1234", "912-70-1234"),
    ],
    "card": [
        ("card 4111 1111 1111 1111 exp", "4111 1111 1111 1111"),
        ("5500-0055-5555-5559", "5500-0055-5555-5559"),
        ("number=2223000048400011&", "2223000048400011"),
        ("3782 822463 10005", "3782 822463 10005"),
        ("6011000990139424", "6011000990139424"),
        ("30569309025904", "30569309025904"),
        ("3530 1113 3330 0000", "3530 1113 3330 0000"),
    ],
    "iban": [
        ("IBAN DE89370400440532013000 | BIC", "DE89370400440532013000"),
        ("GB29 NWBK 6016 1331 9268 19 IS MINE", "GB29 NWBK 6016 1331 9268 19"),
        ("NO93 8601 1117 947", "NO93 8601 1117 947"),
        ("MT84 MALT 0110 0001 2345 MTLC AST0 01S", "MT84 MALT 0110 0001 2345 MTLC AST0 01S"),
    ],
    "medical_record": [
        ("MRN: 1234567, admitted", "1234567"),
        ("mrn#00-12-34-56", "00-12-34-56"),
        ("Patient ID: PT-204481", "PT-204481"),
        ("medical record number is 884213", "884213"),
        ("Hospital No. A123456", "A123456"),
        ("NHS number 943 476 5919", "943 476 5919"),
        ("NHS No: 9434765919", "9434765919"),
        ("Medicare card 1EG4-TE5-MK73", "1EG4-TE5-MK73"),
        ("member id 778812345", "778812345"),
    ],
}

NOT_FOUND = {
    "log-in and path": "git clone git@github.com:org/repo.git; scp me@host.example.org:/tmp/x .",
    "password in an address": "https://user:secret@host.example.org/x and ssh://me@host.example.org",
    "code with @": "${list[@]} $@ icon@2x.png getty@tty1.service lodash@4.17.21 user@localhost",
    "decorator": "@pytest.fixture\ndef f(): ...",
    "dates": "2001-05-12 10:30, 12/05/2001, 2001-05-12T10:30:00+0100, 20010512103000",
    "versions": "v1.2.3, 10.0.19041.1466, 1.2.840.113619.2.55.3 and 3.11.9-2",
    "addresses of machines": "192.168.100.20:8080, 10.0.0.255/24, 2001:db8::8a2e:370:7334",
    "hardware": "00:80:48:12:34:56 and 0x7fff5fbff8c0",
    "an account of a cloud": "arn:aws:iam::123456789012:role/x, account 210987654321",
    "citations": "410 U.S. 113, 93 S. Ct. 705, 35 L. Ed. 2d 147 (1973); 42 U.S.C. § 1983",
    "regulations": "DFARS 252-227-7013, FAR 252-227-7014 and CFR 252-227-7015",
    "references": "PMID: 12345678, PMC1234567, doi 10.1137/0203025, ISBN 978-3-16-148410-0",
    "money": "$1,234,567,890.12 or 1 234 567 890 EUR",
    "identifiers": "4111-1111-1111-1111-aaaa, 550e8400-e29b-41d4-a716-446655440000",
    "clinical codes": "E11.9, S72.001A, LOINC 12345-6, NDC 0002-1433-80, SNOMED 73211009",
    "statistics": "95% CI 1.234-5.678, p = 0.000123, n = 1234567, OR 1.05 (0.98-1.12)",
    "sizes in a command": "find . -size +1073741824c -mtime +30 -perm 0644",
    "time stamps": "1700000000 1700000000000 1700000000000000",
    "a docket": "No. 02-1234-5678, case 1:19-cv-04321",
    "wrong check digit of a card": "4111 1111 1111 1112",
    "no network has it": "9111 1111 1111 1111",
    "wrong check digits of an account": "DE88370400440532013000",
    "wrong length for the country": "DE8937040044053201300",
    "wrong check digit of the health service": "NHS number 943 476 5918",
    "number that cannot have been issued": "000-12-3456, 666-12-3456, 123-00-4567, 123-45-0000",
    "no such area": "the (123) 456-7890 and 199-555-0100",
    "seven digits and no word for it": "867-5309 or 1234567",
    "ten digits and no word for it": "212 555 1234 and 2125551234",
    "nine digits and no word right before": "an SSN, say: order 536904399 or 536 90 4399",
    "ends of longer numbers": "02-317-274-5905, A317-274-5905, 12-536-90-4399, 1.536-90-4399",
    "calls that are none": "call 1998 42 1998, cell 42 1998 1234, dial 42 42 1998 42, pH 7.4 12345",
    "patients counted": "patients 12345 of 23456; patient number 1998; hospital numbers 1990-2000",
    "placeholders": " ".join(PLACEHOLDERS.values()),
}


@pytest.fixture(scope="module")
def finder() -> PersonalDataFinder:
    return PersonalDataFinder(KINDS)


def found_in(finder: PersonalDataFinder, text: str) -> list[tuple[PersonalDataKind, str]]:
    return [(one.kind, text[one.start : one.end]) for one in finder.find([text])]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [(kind, *case) for kind, cases in FOUND.items() for case in cases],
)
def test_each_kind_is_found_to_the_character(
    finder: PersonalDataFinder, kind: PersonalDataKind, text: str, expected: str
) -> None:
    assert found_in(finder, text) == [(kind, expected)]
    # Offsets are characters, whatever stands before.
    assert found_in(finder, f"日本 👩‍👩‍👧 é {text}") == [(kind, expected)]
    # A kind that is not asked for is not found.
    others = PersonalDataFinder([other for other in KINDS if other != kind])
    assert kind not in {one.kind for one in others.find([text])}


@pytest.mark.parametrize("text", NOT_FOUND.values(), ids=NOT_FOUND.keys())
def test_what_only_looks_like_it_is_left_alone(finder: PersonalDataFinder, text: str) -> None:
    assert found_in(finder, text) == []


@given(st.integers(0, 10**12 - 1), st.integers(0, 9))
def test_a_card_is_one_by_its_check_digit_alone(body: int, last: int) -> None:
    number = f"453{body:012}{last}"
    expected = [("card", number)] if luhn.is_valid(number) else []
    assert found_in(PersonalDataFinder(["card"]), f"paid with {number}.") == expected


def test_the_more_specific_kind_has_the_characters(finder: PersonalDataFinder) -> None:
    assert found_in(finder, "MRN: 536-90-4399") == [("medical_record", "536-90-4399")]
    assert found_in(finder, "Patient ID 4111 1111 1111 1111") == [("card", "4111 1111 1111 1111")]
    assert found_in(finder, "phone 4111111111111111") == [("card", "4111111111111111")]
    # Also where another kind begins before it.
    assert found_in(finder, "tel 089 4111 1111 1111 1111") == [("card", "4111 1111 1111 1111")]
    assert found_in(finder, "NHS phone 943-476-5919") == [("phone", "943-476-5919")]
    assert found_in(finder, "617-542-5942@example.com") == [("email", "617-542-5942@example.com")]


def test_findings_come_in_order_with_the_number_of_their_text(finder: PersonalDataFinder) -> None:
    texts = ["nothing", "317-274-5905 or a@example.com", "", "SSN 536-90-4399, b@example.com"]
    expected = [
        Finding(1, 0, 12, "phone"),
        Finding(1, 16, 29, "email"),
        Finding(3, 4, 15, "ssn"),
        Finding(3, 17, 30, "email"),
    ]
    assert finder.find(texts) == expected
    assert finder.find(pa.array(texts)) == expected
    assert finder.find(pa.chunked_array([texts[:2], texts[2:]])) == expected
    assert finder.find(pa.array(texts, type=pa.large_string())) == expected
    assert finder.find([]) == finder.find(pa.array([], type=pa.string())) == []


PIECES = [text for cases in FOUND.values() for text, _ in cases] + list(NOT_FOUND.values())


@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=6), st.sampled_from(" ,\n")
)
@example(["+", "1", "2065550101"], " ")
def test_findings_are_sorted_share_no_character_and_are_gone_once_masked(
    pieces: list[str], between: str
) -> None:
    finder = PersonalDataFinder(KINDS)
    text = between.join(pieces)
    findings = finder.find([text])
    ends = [0] + [one.end for one in findings]
    assert all(end <= one.start < one.end for end, one in zip(ends, findings, strict=False))
    masked = mask(text, findings)
    assert len(masked) == len(text) + sum(
        len(PLACEHOLDERS[one.kind]) - (one.end - one.start) for one in findings
    )
    for one in findings:
        assert PLACEHOLDERS[one.kind] in masked


def test_masks_stand_where_the_findings_stood(finder: PersonalDataFinder) -> None:
    text = (
        "é Ask jane@example.com (617) 542-5942; MRN: 1234567, card 4111 1111 1111 1111, "
        "SSN 536904399, IBAN NO9386011117947."
    )
    assert mask(text, finder.find([text])) == (
        "é Ask [EMAIL] [PHONE]; MRN: [MEDICAL RECORD], card [CARD], SSN [SSN], IBAN [IBAN]."
    )
    assert mask("nothing", []) == "nothing"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("andre@example.com", "a…@e….com"),
        ("SSN 536-90-4399", "***-**-*399"),
        ("317-274-5905", "***-***-*905"),
        ("4111 1111 1111 1111", "**** **** **** 1111"),
        ("MRN 12345", "****5"),
        ("DE89370400440532013000", "******************3000"),
    ],
)
def test_a_report_shows_less_than_is_needed_to_know_it(
    finder: PersonalDataFinder, text: str, shown: str
) -> None:
    (finding,) = finder.find([text])
    assert redact(text[finding.start : finding.end], kind=finding.kind) == shown


def test_a_name_is_shown_by_its_initials() -> None:
    assert redact("Jane Okafor", kind="name") == "J… O…"


@given(st.sampled_from([case for cases in FOUND.values() for case in cases]))
def test_at_most_a_third_of_a_number_is_shown(case: tuple[str, str]) -> None:
    text, expected = case
    (finding,) = PersonalDataFinder(KINDS).find([text])
    shown = redact(text[finding.start : finding.end], kind=finding.kind)
    assert expected not in shown
    if finding.kind != "email":
        signs = sum(sign.isalnum() for sign in expected)
        assert sum(sign.isalnum() for sign in shown) <= min(4, signs // 3)


HOSTILE = {
    "digits": "1" * 300_000,
    "digits apart": "1 " * 150_000,
    "signs of a number": "+1-(" * 75_000,
    "an endless local part": "a." * 150_000 + "@",
    "an endless domain": "a@" + "a." * 150_000 + "1",
    "addresses without an end": "a@" * 150_000,
    "labels": "phone ssn mrn nhs " * 16_000,
    "labels and spaces": ("phone" + " " * 60) * 4_500 + "1234567",
    "capitals and digits": "AB12" * 75_000,
    "parentheses": "(" * 300_000 + "1234567",
    "near cards": "4111 " * 60_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_time_grows_with_the_length_of_a_hostile_text(
    finder: PersonalDataFinder, text: str
) -> None:
    started = time.process_time()
    finder.find([text])
    assert time.process_time() - started < 3  # what backtracks takes minutes


def test_names_without_their_package_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.delitem(sys.modules, "data.personal.names", raising=False)
    with pytest.raises(UserError, match="looking for names needs") as caught:
        PersonalDataFinder(["email", "name"])
    assert caught.value.remedy == 'pip install "tunery[presidio]"'


def test_names_come_from_presidio_over_a_pipeline() -> None:
    """A pipeline that knows two names by rule: the wiring, whatever a model finds."""
    pytest.importorskip("presidio_analyzer", reason="names need the extra tunery[presidio]")
    import spacy

    from data.personal import names as personal_names

    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(
        [{"label": "PERSON", "pattern": name} for name in ("Jane Okafor", "José", "xargs", "AGPL")]
        + [{"label": "ORG", "pattern": "Acme"}]
    )
    names = personal_names.NameFinder(nlp)
    long = "x " * personal_names.MAX_CHARACTERS + "Jane Okafor"
    assert names.find(["é Dr. Jane Okafor of Acme", "", "José ran xargs, AGPL", long]) == [
        [(6, 17)],
        [],
        [(0, 4)],
        [(len(long) - 11, len(long))],
    ]


def test_a_real_model_finds_names_beside_the_other_kinds() -> None:
    pytest.importorskip("presidio_analyzer", reason="names need the extra tunery[presidio]")
    import spacy

    from data.personal import names

    if not any(spacy.util.is_package(name) for name in names.MODELS):
        pytest.skip("no spaCy model of English is installed")
    text = "Dr. Jane Okafor (jane.okafor@example.com) called John Smith on Monday."
    findings = PersonalDataFinder(["email", "name"]).find(["nothing of the kind", text])
    assert mask(text, findings) == "Dr. [NAME] ([EMAIL]) called [NAME] on Monday."


@pytest.mark.corpora
def test_public_corpora_hold_only_what_was_read_in_them(
    finder: PersonalDataFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    folder = os.environ.get("TUNERY_CORPORA")
    if not folder:
        pytest.skip("TUNERY_CORPORA is not set")
    texts = {
        file.name: file.read_text(encoding="utf-8").splitlines()
        for file in sorted(Path(folder).glob("*.*"))
        if file.suffix != ".md"
    }
    found = {
        name: sorted({lines[one.row][one.start : one.end] for one in finder.find(lines)})
        for name, lines in texts.items()
    }
    assert found["overruling.csv"] == ["(212) 227-8208"]
    assert [name for name, some in found.items() if some] == [
        "nl2bash.cm",
        "nl2bash.nl",
        "overruling.csv",
    ]
    assert all("@" in one for one in found["nl2bash.cm"] + found["nl2bash.nl"])
