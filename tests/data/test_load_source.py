import pytest

from configs.data_schema import (
    AwsCliSource,
    Icd10Source,
    LicenceNoticesSource,
)
from data.conversation import ReadRows, question_and_answer
from data.load_source import check_test_ids, listed_test_ids, open_source
from data.sources.whole import WholeSource
from tests.data.sources.reading import read_all


@pytest.mark.parametrize(
    ("config", "licence"),
    [
        (LicenceNoticesSource(kind="licence_notices"), "CC-BY-4.0"),
        (Icd10Source(kind="icd10_chapters"), "Public domain"),
        (AwsCliSource(kind="aws_operations"), "Apache-2.0"),
    ],
)
def test_packaged_sources_are_one_chunk_that_is_fetched_when_it_is_read(
    config: LicenceNoticesSource | Icd10Source | AwsCliSource, licence: str
) -> None:
    source = open_source(config)
    assert len(list(source.chunks())) == 1
    assert source.licence.startswith(licence)
    assert source.attribution
    assert listed_test_ids(source) == frozenset()
    assert check_test_ids(source, []) == []


def load_two() -> ReadRows:
    rows = [question_and_answer("q", "a", id="1"), question_and_answer("q", "", id="2")]
    return ReadRows(conversations=rows, num_read=2)


def test_packaged_rows_pass_the_checks_of_all_sources() -> None:
    rows = read_all(WholeSource(load=load_two, licence="x", attribution="y"))
    assert [row.id for row in rows.conversations] == ["1"]
    assert [(reject.where, reject.reason) for reject in rows.rejects] == [
        ("2", "turn 2 (assistant) is empty")
    ]
