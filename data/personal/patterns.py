"""What e-mail addresses and personal numbers look like, each checked by more than its shape.

A shape alone finds versions, citations and account ids. So a number counts only where its check
digit is right (cards, IBAN, NHS), where its numbering plan has it (phones, US social security), or
where a word before it says what it is.
"""

import re
from collections.abc import Callable, Iterator

import phonenumbers
from phonenumbers import ValidationResult
from stdnum import iban, luhn
from stdnum.gb import nhs
from stdnum.us import itin, ssn

Extent = tuple[int, int]
FindExtents = Callable[[str], Iterator[Extent]]

# Regions in which a number after the word "phone", without a country code, is looked up.
REGIONS = (
    *("US", "GB", "DE", "FR", "IT", "ES", "NL", "BE", "CH", "AT", "IE", "PT", "PL", "SE", "DK"),
    *("NO", "FI", "AU", "NZ", "IN", "ZA", "BR", "MX", "JP", "SG", "HK"),
)
# Endings that stand after an @ in names of files and services, and are no top-level domains.
NOT_DOMAINS = {
    *("png", "jpg", "jpeg", "gif", "webp", "svg", "css", "js", "mjs", "ts", "jsx", "tsx", "json"),
    *("html", "xml", "yaml", "yml", "toml", "txt", "log", "service", "socket", "target", "timer"),
    *("mount", "slice", "path", "scope", "local", "internal", "localdomain", "git"),
}

# RFC 5322 allows more signs than these; around an address they belong to code or prose.
LOCAL_PART = re.compile(r"\w[\w+'-]*(?:\.[\w+'-]+)*\Z")
DOMAIN = re.compile(
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})"
)
PATH_AFTER = re.compile(r":[\w~./$]")

NO_NUMBER_BEFORE = r"(?<!\w)(?<!\w[-./:,])"
NO_NUMBER_AFTER = r"(?!\w)(?![-/]\w)(?![.:,]\d)"
INTERNATIONAL = re.compile(r"(?<![\w+])\+ ?[1-9](?:[ \xa0().\-/]{0,2}\d){7,14}(?!\w)")
NORTH_AMERICAN = re.compile(
    NO_NUMBER_BEFORE
    + r"(?:1[-. ])?(?:\(\d{3}\) ?[-.]?\d{3}[-. ]\d{4}|\d{3}([-.])\d{3}\1\d{4})"
    + NO_NUMBER_AFTER
)
AMERICAN_GROUPS = re.compile(r"(?:1[-. ]?)?\(?\d{3}\)?[-. ]?\d{3}[-. ]?\d{4}")
PHONE = re.compile(r"(?<![\w+])(?:\+|\((?=\d{1,5}\)))?\d(?:[ \xa0().\-/]{0,2}\d){6,14}(?!\w)")
# What stands right before a number and says what it is: labels end where the number begins, and
# are looked for backwards from it, over WINDOW characters.
WINDOW = 60
LINK = (
    r"(?:\s{0,2}(?:numbers?|no\.?|nr\.?|us|me|him|her|at|on|is|was)){0,3}\s{0,2}[:=#]?[\s(]{0,2}\Z"
)
PHONE_LABEL = re.compile(
    r"(?i)\b(?:tele?(?:ph?one?|fon|fax)?|phone|mobile|cell(?:ular|phone)|fax|whatsapp|hotline"
    r"|t[ée]l(?:[ée]phone)?|tel[ée]fono|handy|(?P<weak>call|dial|cell|mob|ph))\b\.?" + LINK
)
CITATION = re.compile(
    r"(?i)(?:\b(?:d?fars?|cfr|u\.?s\.?c\.?|section|sec\.?|rule|reg\.)|§)\s{0,2}\Z"
)
SOCIAL_SECURITY = re.compile(NO_NUMBER_BEFORE + r"\d{3}([- ]?)\d{2}\1\d{4}" + NO_NUMBER_AFTER)
SOCIAL_SECURITY_LABEL = re.compile(r"(?i)\b(?:ssn|itin|social\s{1,2}security)\b" + LINK)
# Lengths and first digits by network: Visa, Mastercard, American Express, Discover, Diners, JCB,
# UnionPay; as printed on the card, or in one run.
CARD = re.compile(
    r"(?<![\w.+-])(?:"
    r"4\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)([ -]?)\d{4}\2\d{4}\2\d{4}"
    r"|(?:6011|64[4-9]\d|65\d\d|352[89]|35[3-8]\d|62\d\d)([ -]?)\d{4}\3\d{4}\3\d{4}"
    r"|3[47]\d\d([ -]?)\d{6}\4\d{5}"
    r"|3(?:0[0-5]|[68]\d)\d([ -]?)\d{6}\5\d{4}"
    r")" + NO_NUMBER_AFTER
)
ACCOUNT = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)")
RECORD = re.compile(r"(?<!\d)\d(?:-?\d){4,13}[A-Za-z]?(?!\w)(?!-\w)")
RECORD_LABEL = re.compile(
    r"(?i)\b(?:mrn|uhid|(?:medical\s{1,2}record|patient|hospital|chart|encounter|medicare|medicaid"
    r"|health\s{1,2}(?:card|insurance)|(?:member|subscriber|beneficiary)(?=\s{1,2}id))"
    r"\s{0,2}(?:id|identifier|number|num|no|nr|\#)\b)\.?(?:\s{0,2}(?:is|was)\b)?"
    r"\s{0,2}[:=#]{0,2}\s{0,2}(?P<letters>[a-z]{0,4}-?)\Z"
)
HEALTH_SERVICE = re.compile(r"(?<![\w-])\d{3}([ -]?)\d{3}\1\d{4}(?!\w)")
HEALTH_SERVICE_LABEL = re.compile(r"(?i)\bnhs\b" + LINK)
# Medicare's beneficiary identifier, by its positions' kinds: letters without S, L, O, I, B, Z.
BENEFICIARY = re.compile(
    r"(?<![\w-])[1-9][AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y\d]\d-[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y\d]\d-"
    r"[AC-HJKMNP-RT-Y]{2}\d{2}(?![\w-])"
)


def find_emails(text: str) -> Iterator[Extent]:
    """Addresses with a domain; not the login in `ssh://git@host`, nor `git@host.org:path`."""
    at = text.find("@")
    while at >= 0:
        local = LOCAL_PART.search(text, max(0, at - 64), at)
        domain = DOMAIN.match(text, at + 1)
        if local and domain and _is_address(text, local.start(), domain):
            yield local.start(), domain.end()
        at = text.find("@", at + 1)


def find_phones(text: str) -> Iterator[Extent]:
    """Numbers of the world's numbering plans: with a country code, American, or after "phone"."""
    for match in INTERNATIONAL.finditer(text):
        yield from _longest_valid(text, match.span(), _is_international)
    for match in NORTH_AMERICAN.finditer(text):
        if not _before(match, CITATION) and _is_north_american(match[0]):
            yield match.span()
    for match in PHONE.finditer(text):
        if label := _before(match, PHONE_LABEL):
            # Much besides a number follows "call"; what begins with 0 is one in most countries.
            is_american = label["weak"] and match[0][0] != "0"
            is_valid = _is_american_or_local if is_american else _is_phone_somewhere
            yield from _longest_valid(text, match.span(), is_valid)


def find_social_security_numbers(text: str) -> Iterator[Extent]:
    """US social security and taxpayer numbers that can have been issued."""
    for match in SOCIAL_SECURITY.finditer(text):
        is_told = match[1] == "-" or _before(match, SOCIAL_SECURITY_LABEL)
        digits = _digits(match[0])
        if is_told and (ssn.is_valid(digits) or itin.is_valid(digits)):
            yield match.span()


def find_cards(text: str) -> Iterator[Extent]:
    """Payment cards: a network's first digits and length, and Luhn's check digit."""
    return (match.span() for match in CARD.finditer(text) if luhn.is_valid(_digits(match[0])))


def find_accounts(text: str) -> Iterator[Extent]:
    """IBAN: the country's length and form, and check digits modulo 97 (ISO 13616)."""
    for match in ACCOUNT.finditer(text):
        yield from _longest_valid(text, match.span(), iban.is_valid)


def find_medical_records(text: str) -> Iterator[Extent]:
    """Numbers after "MRN", "patient ID" and the like; NHS numbers by check digit; Medicare's."""
    for match in RECORD.finditer(text):
        if label := _before(match, RECORD_LABEL):
            yield label.start("letters"), match.end()
    for match in HEALTH_SERVICE.finditer(text):
        if _before(match, HEALTH_SERVICE_LABEL) and nhs.is_valid(match[0]):
            yield match.span()
    for match in BENEFICIARY.finditer(text):
        yield match.span()


def _before(match: re.Match[str], label: re.Pattern[str]) -> re.Match[str] | None:
    return label.search(match.string, max(0, match.start() - WINDOW), match.start())


def _is_address(text: str, start: int, domain: re.Match[str]) -> bool:
    """Whether it ends like a domain and is no part of a URL, nor of a path like `git@host:path`."""
    has_path = PATH_AFTER.match(text, domain.end()) is not None
    in_url = "://" in text[max(0, start - WINDOW) : start].rpartition(" ")[2]
    return domain[0].rpartition(".")[2].lower() not in NOT_DOMAINS and not (has_path or in_url)


def _longest_valid(text: str, extent: Extent, is_valid: Callable[[str], bool]) -> Iterator[Extent]:
    """The extent, shortened group by group from its end until it is valid; nothing if it never is.

    A pattern of groups runs on into the words or numbers after it.
    """
    start, end = extent
    while end > start:
        if is_valid(text[start:end]):
            yield start, end
            return
        shorter = re.search(r"[ \xa0().\-/]+[^ \xa0().\-/]*\Z", text[start:end])
        end = start + shorter.start() if shorter else start


def _is_international(number: str) -> bool:
    return _is_valid_phone(number, None)


def _is_north_american(number: str) -> bool:
    """Whether the plan has the number, or keeps it for fiction, as it does 555."""
    area, exchange = _digits(number)[-10:-7], _digits(number)[-7:-4]
    is_fiction = area == "555" or (exchange == "555" and area[0] > "1")
    return is_fiction or _is_valid_phone(number, "US")


def _is_american_or_local(number: str) -> bool:
    if re.fullmatch(r"\d{3}[-. ]\d{4}", number):
        return _is_local_phone(number)
    return AMERICAN_GROUPS.fullmatch(number) is not None and _is_north_american(number)


def _is_phone_somewhere(number: str) -> bool:
    return _is_american_or_local(number) or any(
        _is_valid_phone(number, region) for region in REGIONS
    )


def _is_valid_phone(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _is_local_phone(number: str) -> bool:
    reason = phonenumbers.is_possible_number_with_reason(phonenumbers.parse(number, "US"))
    return bool(reason == ValidationResult.IS_POSSIBLE_LOCAL_ONLY)


def _digits(number: str) -> str:
    return re.sub(r"\D", "", number)
