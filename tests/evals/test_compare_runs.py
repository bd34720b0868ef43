import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.run_directory import RunDirectory, create_run
from data.conversation import Conversation
from evals.asking import ask
from evals.compare_runs import VARIANT_RECORDING, gather_two_runs
from evals.recording import write_recording
from evals.sides import of_variant
from evals.targets import Target
from evals.task_rows import load_own_task
from tests.evals.conftest import CHAPTERS, BuildConfig, chapter_rows, term_number, write_rows
from tests.evals.loopback_host import LoopbackHost, run_host


def answer(model: str, messages: list[dict[str, str]]) -> str:
    """Run `a` knows every second term, run `b` two of three."""
    n = term_number(messages[-1]["content"])
    knows = n % 2 == 0 if model == "a" else n % 3 > 0
    return CHAPTERS[n % len(CHAPTERS)].lower() if knows else "Unknown"


class Runs:
    """Runs with data and answers of a real host, evaluated as the stage does it."""

    def __init__(self, folder: Path, build_config: BuildConfig, host: LoopbackHost) -> None:
        self.folder, self.build_config, self.host = folder, build_config, host

    def make(
        self,
        name: str,
        rows: Sequence[Conversation],
        *,
        known: Sequence[str] = (),
        **evaluation: Any,  # noqa: ANN401 (as a YAML file holds it)
    ) -> RunDirectory:
        settings: dict[str, Any] = {"num_examples": 2, "guard": {"sets": []}, **evaluation}
        config = self.build_config(**settings).model_copy(update={"name": name})
        run = create_run(config, self.folder)
        data = run.path / "data"
        data.mkdir()
        write_rows(data / "test.parquet", rows)
        write_rows(data / "train.parquet", chapter_rows(500, 10))
        (data / "clusters.jsonl").touch()
        write_lines(
            data / "contamination.jsonl",
            [{"set": "test rows", "test": place, "known": True} for place in known],
        )
        (data / "facts.json").write_text(json.dumps({"sources": []}))
        return run

    def evaluate(self, run: RunDirectory) -> RunDirectory:
        task = load_own_task(run.load_config(), run.path / "data")
        target = Target(run.path.name, self.host.base_url, run.path.name)
        asked = of_variant([task])
        answers = ask(
            target,
            [one.build() for one in asked],
            log_dir=run.path / "evals" / "logs" / "variant",
            max_connections=4,
        )
        write_recording(
            run.path / VARIANT_RECORDING,
            target=target,
            tasks=[(one.task, one.with_examples) for one in asked],
            answers=answers,
        )
        return run


def write_lines(file: Path, lines: Sequence[Mapping[str, object]]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def runs(tmp_path: Path, build_config: BuildConfig) -> Runs:
    return Runs(tmp_path, build_config, LoopbackHost(reply=answer))


def test_common_questions_are_paired_and_scored_anew(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    with run_host(runs.host):
        a = runs.evaluate(runs.make("a", chapter_rows(0, 12), known=["icd/7"]))
        # The other order and other ids: what counts is what was asked.
        rows = [replace(row, id=f"b-{row.id}") for row in chapter_rows(4, 12)[::-1]]
        b = runs.evaluate(runs.make("b", rows, known=["b-icd/10"], task="chapters"))
    num_asked = len(runs.host.requests)
    with caplog.at_level(logging.WARNING):
        found = gather_two_runs(a, b)
    assert len(runs.host.requests) == num_asked
    (evidence,) = found.evidence
    numbers = list(range(11, 3, -1))
    assert [one.id for one in evidence.task.questions] == [f"b-icd/{n}" for n in numbers]
    assert list(evidence.baseline) == ["zero-shot"]
    baseline, variant = evidence.baseline["zero-shot"], evidence.variant
    assert [one.id for one in baseline] == [one.id for one in variant]
    assert [one.score for one in baseline] == [float(n % 2 == 0) for n in numbers]
    assert [one.score for one in variant] == [float(n % 3 > 0) for n in numbers]
    assert (evidence.baseline_name, evidence.baseline_model) == ("a", "a")
    assert variant[0].question == "Diagnosis: term 11. Which chapter?"
    assert variant[0].reference == CHAPTERS[1]
    assert variant[0].completion_tokens == 1
    # What either has learned by heart is no clean question.
    assert [one.id for one in evidence.task.questions if one.is_known] == [
        "b-icd/10",
        "b-icd/7",
    ]
    assert found.left_out == [
        "chapters: 8 questions are compared; left out are 4 of a and 4 of b, which the "
        "other was not asked in the same way"
    ]
    logged = [one.getMessage() for one in caplog.records if one.name == "evals.compare_runs"]
    assert logged == found.left_out
    assert found.not_compared == []


def test_the_metric_is_that_of_the_later_run(runs: Runs) -> None:
    with run_host(runs.host):
        a = runs.evaluate(runs.make("a", chapter_rows(0, 6)))
        b = runs.evaluate(runs.make("b", chapter_rows(0, 6), metric="exact_match"))
    (evidence,) = gather_two_runs(a, b).evidence
    # Both answer in small letters.
    assert {one.score for one in (*evidence.baseline["zero-shot"], *evidence.variant)} == {0.0}
    (mirrored,) = gather_two_runs(b, a).evidence
    assert sum(one.score for one in mirrored.baseline["zero-shot"]) == 4


def test_every_epoch_is_paired(runs: Runs) -> None:
    with run_host(runs.host):
        settings: dict[str, Any] = {"num_epochs": 2, "temperature": 0.5}
        a = runs.evaluate(runs.make("a", chapter_rows(0, 3), **settings))
        b = runs.evaluate(runs.make("b", chapter_rows(0, 3), **settings))
    (evidence,) = gather_two_runs(a, b).evidence
    expected = [(f"icd/{n}", epoch) for n in range(3) for epoch in (1, 2)]
    assert [(one.id, one.epoch) for one in evidence.variant] == expected
    assert [(one.id, one.epoch) for one in evidence.baseline["zero-shot"]] == expected


@pytest.mark.parametrize(
    ("rows", "settings", "problem"),
    [
        (chapter_rows(100, 6), {}, "of its 6 questions 0 were asked of both a and b"),
        (chapter_rows(5, 6), {}, "of its 6 questions 1 were asked of both a and b"),
        (chapter_rows(0, 6), {"max_tokens": 9}, "a and b were asked with other parameters"),
        (chapter_rows(0, 6), {"temperature": 0.5}, "a and b were asked with other parameters"),
    ],
)
def test_too_little_in_common_is_refused(
    runs: Runs, rows: list[Conversation], settings: dict[str, Any], problem: str
) -> None:
    with run_host(runs.host):
        a = runs.evaluate(runs.make("a", chapter_rows(0, 6)))
        b = runs.evaluate(runs.make("b", rows, **settings))
    with pytest.raises(UserError, match="cannot be compared on 'diagnosis to chapter'") as caught:
        gather_two_runs(a, b)
    assert problem in caught.value.what
    assert "on the same test rows with the same settings" in (caught.value.remedy or "")


def test_a_judged_task_is_refused(runs: Runs) -> None:
    judge = {"base_url": "http://127.0.0.1:9/v1", "model": "judge-7b"}
    with run_host(runs.host):
        a, b = (
            runs.evaluate(runs.make(name, chapter_rows(0, 3), metric="pairwise", judge=judge))
            for name in "ab"
        )
    with pytest.raises(UserError, match="metric pairwise needs a judge"):
        gather_two_runs(a, b)


def test_a_run_without_answers_is_refused(runs: Runs) -> None:
    with run_host(runs.host):
        a = runs.evaluate(runs.make("a", chapter_rows(0, 3)))
    b = runs.make("b", chapter_rows(0, 3))
    with pytest.raises(UserError, match="no recorded answers of its variant") as caught:
        gather_two_runs(a, b)
    assert str(b.config_file) in (caught.value.remedy or "")
    with pytest.raises(UserError, match="cannot be compared with itself"):
        gather_two_runs(a, a)
