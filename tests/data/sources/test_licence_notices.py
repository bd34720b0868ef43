"""Rules of the legal source on small rule files, and counts on the pinned package."""

import time

import pytest

from data.conversation import ReadRows
from data.packages import cached_wheel
from data.sources import licence_notices

MIT = b"""---
key: mit
category: Permissive
spdx_license_key: MIT
other_spdx_license_keys:
  - LicenseRef-MIT-Bootstrap
---

Permission is hereby granted, free of charge
"""
ISC = b"---\nkey: isc\ncategory: Permissive\nspdx_license_key: ISC\n---\ntext\n"
OWN = b"---\nkey: own\ncategory: Commercial\nspdx_license_key: LicenseRef-scancode-own\n---\ntext\n"
EXCEPTION = (
    b"---\nkey: lgpl-exception\ncategory: Copyleft Limited\nis_exception: yes\n"
    b"spdx_license_key: LGPL-3.0-linking-exception\n---\ntext\n"
)
FILLER = "Use of this source code is governed by a license that can be found in"


def rule(body: str, *, expression: str = "mit", end: str = "---", header: str = "") -> bytes:
    lines = ["---", f"license_expression: {expression}", "is_license_notice: yes"]
    return "\n".join([*lines, *header.splitlines(), end, "", body, ""]).encode()


def parse(rules: dict[str, bytes]) -> ReadRows:
    return licence_notices.parse_notices(
        rules={f"licensedcode/data/rules/{name}": content for name, content in rules.items()},
        licences={
            f"licensedcode/data/licenses/{name}.LICENSE": content
            for name, content in {
                "mit": MIT,
                "isc": ISC,
                "own": OWN,
                "lgpl-exception": EXCEPTION,
            }.items()
        },
    )


def test_a_licence_file_without_a_key_is_an_error() -> None:
    with pytest.raises(KeyError, match="key"):
        licence_notices.parse_notices(rules={}, licences={"x": MIT.replace(b"key: mit\n", b"")})


def five_mit_notices() -> dict[str, bytes]:
    places = ["LICENSE", "the root folder", "COPYING here", "our web site", "the header above"]
    return {f"mit_{n}.RULE": rule(f"{FILLER} {place}") for n, place in enumerate(places)}


def test_question_and_answer_read_as_documented() -> None:
    rows = parse(five_mit_notices())
    assert [row.id for row in rows.conversations] == [f"mit_{number}.RULE" for number in range(5)]
    assert [message["content"] for message in rows.conversations[0].messages] == [
        f"Licence notice: {FILLER} LICENSE Name the licence (SPDX id) and its category.",
        "MIT (Permissive)",
    ]


def test_every_rule_file_is_kept_or_counted() -> None:
    kept = five_mit_notices()
    others = {
        "reference.RULE": rule("MIT").replace(b"is_license_notice", b"is_license_reference"),
        "short.RULE": rule("Released under the MIT license."),
        "long.RULE": rule("word " * 71),
        "two.RULE": rule(f"{FILLER} A and B", expression="mit OR isc"),
        "old.RULE": rule(f"{FILLER} an old place", header="is_deprecated: yes"),
        "own.RULE": rule(f"{FILLER} my own place", expression="own"),
        "exception.RULE": rule(f"{FILLER} EXCEPTIONS", expression="lgpl-exception"),
        "again.RULE": rule(f"# {FILLER.upper()}\n# LICENSE"),
        "rare.RULE": rule(f"{FILLER} ISC", expression="isc"),
        "headless.RULE": f"{FILLER} LICENSE".encode(),
        "latin.RULE": rule(FILLER).replace(b"governed", b"g\xe9r\xe9"),
        "no-licence.RULE": rule(f"{FILLER} b").replace(b"license_expression: mit\n", b""),
        "yaml.RULE": rule(f"{FILLER} c", header="notes: [unclosed"),
    }
    rows = parse(kept | others)
    assert [row.id for row in rows.conversations] == list(kept)
    assert rows.dropped == {
        "not a licence notice": 1,
        "not 12 to 70 words": 2,
        "several licences": 1,
        "deprecated rule": 1,
        "licence without an SPDX id": 2,
        "repeated question": 1,
        "licence with fewer than 5 notices": 1,
    }
    rejected = {reject.where.rsplit("/", 1)[-1]: reject.reason for reject in rows.rejects}
    assert list(rejected) == ["headless.RULE", "latin.RULE", "no-licence.RULE", "yaml.RULE"]
    assert rejected["headless.RULE"] == "no header between two --- lines"
    assert rejected["no-licence.RULE"] == "no licence file for ''"
    assert rows.num_read == len(kept) + len(others)
    assert rows.num_read == len(rows.conversations) + len(rows.rejects) + sum(rows.dropped.values())


def test_a_licence_that_no_file_describes_is_a_reject() -> None:
    rows = parse({"x.RULE": rule(f"{FILLER} x", expression="nowhere")})
    assert [(reject.where, reject.reason) for reject in rows.rejects] == [
        ("licensedcode/data/rules/x.RULE", "no licence file for 'nowhere'")
    ]


@pytest.mark.parametrize("end", ["--- ", "---\t", "---\r", "---"])
def test_the_header_ends_at_a_fence_whatever_blanks_follow_it(end: str) -> None:
    rules = five_mit_notices() | {"fence.RULE": rule(f"{FILLER} behind the fence", end=end)}
    assert "fence.RULE" in [row.id for row in parse(rules).conversations]


@pytest.mark.parametrize(
    ("line", "cleaned"),
    [
        ("// licensed under MIT", "licensed under MIT"),
        (" * licensed under MIT   *", "licensed under MIT"),
        ("/* licensed under MIT */", "licensed under MIT"),
        ("/** licensed", "licensed"),
        ("## Licence ##", "Licence"),
        (";;;; licensed", "licensed"),
        ("|* NOTICE: *|", "NOTICE:"),
        ("%% licensed", "licensed"),
        ("dnl licensed", "licensed"),
        ("-- licensed --", "licensed"),
        ('.\\" licensed', "licensed"),
        ("<!-- licensed -->", "licensed"),
        ("==== LICENCE ====", "LICENCE"),
        ("> licensed", "licensed"),
        (".", ""),
        ("the {{MIT License}}", "the MIT License"),
        # What only looks like a comment mark.
        ("/usr/share/common-licenses/GPL", "/usr/share/common-licenses/GPL"),
        ("see http://www.adobe.com/eulas/", "see http://www.adobe.com/eulas/"),
        ("<program> is free software", "<program> is free software"),
        ("- either of these", "- either of these"),
        ("%s is free software", "%s is free software"),
        (".NET is licensed", ".NET is licensed"),
        ("remove nothing, GPL-2.0+", "remove nothing, GPL-2.0+"),
    ],
)
def test_comment_marks_are_removed_and_nothing_else(line: str, cleaned: str) -> None:
    assert licence_notices._clean(f"{line}\n") == cleaned


@pytest.mark.parametrize("mark", ["*", "=", "-", "#", "/*", "* ", "*/", " //"])
def test_long_rulers_take_no_time(mark: str) -> None:
    started = time.perf_counter()
    for line in (mark * 5000, mark * 5000 + "x", "x" + mark * 5000, "x" + mark * 5000 + "x"):
        licence_notices._clean(line)
    assert time.perf_counter() - started < 1.0


def test_the_pinned_package() -> None:
    wheel = cached_wheel(
        package=licence_notices.PACKAGE,
        version=licence_notices.VERSION,
        sha256=licence_notices.WHEEL_SHA256,
    )
    if not wheel.exists():
        pytest.skip(f"{wheel.name} is not in the cache: `tunery prepare` of its demo fetches it")
    rows = licence_notices.load()
    assert rows.num_read == 34_859
    assert len(rows.conversations) == 3_192
    assert rows.num_read == len(rows.conversations) + len(rows.rejects) + sum(rows.dropped.values())
    assert len({row.id for row in rows.conversations}) == 3_192
    assert len({row.messages[1]["content"] for row in rows.conversations}) == 65
    assert rows.rejects == []
