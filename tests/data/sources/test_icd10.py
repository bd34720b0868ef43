"""Rules of the medical source on a small tabular list, and counts on the pinned one."""

import pytest

from data.conversation import ReadRows, text_of
from data.packages import cached_wheel
from data.sources import icd10

TABULAR = """<?xml version="1.0" encoding="utf-8"?>
<ICD10CM.tabular>
  <chapter>
    <name>1</name>
    <desc>Certain infectious and parasitic diseases (A00-B99)</desc>
    <section id="A00-A09">
      <diag><name>A00</name><desc>Cholera</desc>
        <diag><name>A00.0</name><desc>Cholera due to Vibrio cholerae 01</desc>
          <inclusionTerm><note>Classical  cholera.</note><note>CLASSICAL CHOLERA</note>
          </inclusionTerm>
        </diag>
        <diag><name>A00.1</name>
          <inclusionTerm><note>Eosinophilic granuloma</note><note> </note></inclusionTerm>
          <inclusionTerm><note>Conditions classifiable to B15-B19</note></inclusionTerm>
        </diag>
      </diag>
    </section>
  </chapter>
  <chapter>
    <name>12</name>
    <desc>Diseases of the skin and subcutaneous tissue (L00-L99)</desc>
    <section id="L80-L99">
      <diag><name>L89.5</name>
        <inclusionTerm>
          <note>Eosinophilic granuloma</note>
          <note>Healing pressure ulcer of right ankle, stage 4</note>
          <note>Healing pressure ulcer of unspecified ankle, stage 4</note>
          <note>This category is for use with skin changes</note>
          <note>Vitamin B12 deficiency in hair (other)</note>
        </inclusionTerm>
      </diag>
    </section>
  </chapter>
</ICD10CM.tabular>
"""


@pytest.fixture
def rows() -> ReadRows:
    return icd10.parse_tabular(TABULAR.encode())


def test_question_and_answer_read_as_documented(rows: ReadRows) -> None:
    first = rows.conversations[0]
    assert first.id == "A00.0#1"
    assert [message["content"] for message in first.messages] == [
        "Diagnosis: Classical cholera. Which ICD-10-CM chapter does this diagnosis belong to?",
        "Certain infectious and parasitic diseases",
    ]


def test_terms_that_differ_in_a_side_or_an_nos_share_a_group(rows: ReadRows) -> None:
    groups = {row.id: row.group for row in rows.conversations}
    assert groups["L89.5#2"] == groups["L89.5#3"] == "healing pressure ulcer of ankle, stage 4"
    assert len(set(groups.values())) == len(groups) - 1


def test_every_term_is_kept_or_counted(rows: ReadRows) -> None:
    assert [row.id for row in rows.conversations] == ["A00.0#1", "L89.5#2", "L89.5#3", "L89.5#5"]
    assert rows.dropped == {
        "note to coders": 2,
        "repeated question": 1,
        "question with several answers": 2,
    }
    assert [(reject.where, reject.reason) for reject in rows.rejects] == [
        ("A00.1#2", "inclusion term or chapter name is empty")
    ]
    assert rows.num_read == 10
    assert rows.num_read == len(rows.conversations) + len(rows.rejects) + sum(rows.dropped.values())


def test_the_pinned_release() -> None:
    wheel = cached_wheel(package=icd10.PACKAGE, version=icd10.VERSION, sha256=icd10.WHEEL_SHA256)
    if not wheel.exists():
        pytest.skip(f"{wheel.name} is not in the cache: `tunery prepare` of its demo fetches it")
    rows = icd10.load()
    assert rows.num_read == 12_569
    assert len(rows.conversations) == 12_356
    assert rows.num_read == len(rows.conversations) + len(rows.rejects) + sum(rows.dropped.values())
    assert len({row.id for row in rows.conversations}) == 12_356
    assert len({text_of(row.messages[0]).casefold() for row in rows.conversations}) == 12_356
    assert len({text_of(row.messages[1]) for row in rows.conversations}) == 22
    assert rows.rejects == []
