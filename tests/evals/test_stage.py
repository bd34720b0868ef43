import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
from rich.console import Console

from configs.artefact_paths import base_gguf, variant_gguf
from configs.errors import UserError
from configs.run_directory import RunDirectory, StageRecord, create_run
from data.conversation import ImagePart, Message
from data.votes import VOTES_FILE
from evals.recording import open_recording
from evals.results import ComparisonResult
from evals.stage import ServeSide, compare_runs, evaluate_run, record_baseline, run_pilot
from evals.targets import Target
from tests.data.cast_votes import cast, keep
from tests.evals.conftest import BuildConfig, chapter_rows, reply, write_rows
from tests.evals.loopback_host import LoopbackHost, run_host

CONSOLE = Console(width=80, record=True)
PRICE = {"input_per_million": 2.0, "output_per_million": 6.0}


def answer(model: str, messages: list[dict[str, str]]) -> str:
    """The tests' terms as `reply` has them; everything outside the domain is met with a shrug."""
    if "term " in messages[-1]["content"]:
        return reply(model, messages)
    return "I do not know." if model == "base" else "No idea at all."


@pytest.fixture
def host() -> Iterator[LoopbackHost]:
    with run_host(LoopbackHost(reply=answer)) as host:
        yield host


def write_template(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


class Runs:
    """Runs whose sides are served by the loopback host."""

    def __init__(self, folder: Path, build_config: BuildConfig, host: LoopbackHost) -> None:
        self.folder, self.build, self.host = folder, build_config, host
        self.served: list[str] = []

    def make(self, name: str = "icd", **evaluation: Any) -> RunDirectory:  # noqa: ANN401
        settings = {"num_examples": 2, "guard": {"sets": []}, "num_resamples": 1000, **evaluation}
        config = self.build(**settings).model_copy(update={"name": name})
        run = create_run(config, self.folder)
        data = run.path / "data"
        if not data.exists():
            data.mkdir()
            write_rows(data / "test.parquet", chapter_rows(0, 40))
            write_rows(data / "train.parquet", chapter_rows(500, 12))
            for file in ("clusters.jsonl", "contamination.jsonl"):
                (data / file).touch()
            (data / "facts.json").write_text(json.dumps({"sources": []}))
            for stage in ("prepare", "merge"):
                record = StageRecord(state="done", outputs={}, outputs_sha256="x")
                run.write_record(stage, record)
            write_template(variant_gguf(run.path, config))
            write_template(base_gguf(run.path, config))
        return run

    def serve_side(self, run: RunDirectory) -> ServeSide:
        @contextmanager
        def serve(base: bool) -> Iterator[Target]:
            assert not self.served, "two models may not fit one card"
            model = "base" if base else "variant"
            self.served.append(model)
            yield Target(run.path.name, self.host.base_url, model, revision=model)
            self.served.remove(model)

        return serve

    def evaluate(self, run: RunDirectory) -> dict[str, Any]:
        return evaluate_run(
            run, run.load_config(), serve_side=self.serve_side(run), console=CONSOLE
        )


@pytest.fixture
def runs(tmp_path: Path, build_config: BuildConfig, host: LoopbackHost) -> Runs:
    return Runs(tmp_path / "runs", build_config, host)


def hosted(host: LoopbackHost, **more: object) -> dict[str, object]:
    return {
        "kind": "hosted",
        "base_url": host.base_url,
        "model": "hosted-model",
        "api_key_env": None,
        **more,
    }


def result_of(run: RunDirectory, folder: str = "evals") -> ComparisonResult:
    result: ComparisonResult = json.loads((run.path / folder / "comparison.json").read_text())
    return result


# Against the base.


def test_the_variant_is_held_against_the_bases_better_prompt(
    runs: Runs, host: LoopbackHost
) -> None:
    run = runs.make()
    facts = runs.evaluate(run)
    result = result_of(run)
    [task] = result["tasks"]
    assert task["baseline"]["prompt"] == "2 examples"
    assert [one["score"] for one in task["baseline"]["prompts"]] == [0.0, 0.25]
    assert task["variant"]["score"] == 0.9
    assert (task["num_won"], task["num_lost"], task["num_tied"]) == (28, 2, 10)
    assert task["delta"] == 0.65
    assert (result["verdict"], result["promote"]) == ("better", True)
    assert facts == {
        "verdict": "better",
        "promote": True,
        "num_samples": 40,
        "baseline_score": 0.25,
        "variant_score": 0.9,
    }
    assert set(host.answered.values()) == {3}
    for name in ("report.html", "report.md", "recordings/base.jsonl", "recordings/variant.jsonl"):
        assert (run.path / "evals" / name).stat().st_size > 500
    samples = (run.path / "evals/samples.jsonl").read_text().splitlines()
    outcomes = Counter(json.loads(line)["outcome"] for line in samples)
    assert outcomes == {"won": 28, "lost": 2, "both_right": 8, "both_wrong": 2}
    assert (run.path / "evals" / "log-viewer" / "index.html").exists()


def test_the_same_answers_give_the_same_file_and_are_not_asked_for_again(
    runs: Runs, host: LoopbackHost
) -> None:
    run = runs.make()
    runs.evaluate(run)
    first, num_requests = (run.path / "evals/comparison.json").read_bytes(), len(host.requests)
    runs.evaluate(runs.make(equivalence_margin=0.03))
    assert (run.path / "evals/comparison.json").read_bytes() == first
    assert len(host.requests) == num_requests


def test_an_adapter_that_does_nothing_is_told(runs: Runs, host: LoopbackHost) -> None:
    host.reply = lambda model, messages: answer("base", messages)
    with pytest.raises(UserError, match="the adapter is not acting"):
        runs.evaluate(runs.make())
    with pytest.raises(FileNotFoundError):
        result_of(runs.make())


def test_a_failed_evaluation_leaves_no_earlier_verdict(runs: Runs, host: LoopbackHost) -> None:
    run = runs.make()
    runs.evaluate(run)
    # Refused at once, where a host that is gone would be waited for.
    host.key = "another"
    with pytest.raises(UserError, match="key"):
        runs.evaluate(runs.make(max_tokens=9))
    assert not (run.path / "evals/comparison.json").exists()
    assert not (run.path / "evals/report.html").exists()
    assert not (run.path / "evals/samples.jsonl").exists()


# Guard sets.


def test_a_variant_that_loses_elsewhere_is_better_and_not_promoted(
    runs: Runs, host: LoopbackHost
) -> None:
    def forgetful(model: str, messages: list[dict[str, str]]) -> str:
        question = messages[-1]["content"]
        if "term " in question:
            return reply(model, messages)
        return "I cannot help with that." if model == "variant" else "Yes, of course: do it."

    host.reply = forgetful
    run = runs.make(guard={"sets": ["refusals"], "num_samples": 60})
    runs.evaluate(run)
    result = result_of(run)
    own, guard = result["tasks"]
    assert (own["verdict"], result["verdict"]) == ("better", "better")
    assert (guard["role"], guard["baseline"]["model"]) == ("guard", "base")
    assert guard["variant"]["score"] < guard["baseline"]["score"]
    assert guard["non_inferiority"] is not None
    assert not guard["non_inferiority"]["passed"]
    assert result["guard"] is not None
    assert result["guard"]["delta"] == guard["delta"]
    assert not result["promote"]
    assert result["reasons"][-1] == "So: do not promote."


def test_tools_that_the_template_cannot_hold_are_told_as_not_asked(
    runs: Runs, host: LoopbackHost
) -> None:
    host.capabilities = {"function_calling": False, "vision": False}
    run = runs.make(guard={"sets": ["tool_calls", "arithmetic"], "num_samples": 2})
    runs.evaluate(run)
    result = result_of(run)
    assert [task["name"] for task in result["tasks"]] == ["diagnosis to chapter", "Arithmetic"]
    [not_asked] = result["not_asked"]
    assert not_asked["name"] == "Tool calls"
    assert "no place for tools" in not_asked["why"]
    assert not any("tools" in body for body in host.requests)


# A hosted baseline, and its recording.


def test_a_hosted_model_is_asked_last_and_its_answers_are_kept(
    runs: Runs, host: LoopbackHost
) -> None:
    run = runs.make(
        baseline=hosted(host, price=PRICE),
        guard={"sets": ["arithmetic"], "num_samples": 2},
        own_cost={"per_month": 90.0},
    )
    runs.evaluate(run)
    result = result_of(run)
    asked = [body["model"] for body in host.requests]
    probe, *rest = asked
    assert probe == "hosted-model"
    assert [model for n, model in enumerate(rest) if model not in rest[:n]] == [
        "base",
        "variant",
        "hosted-model",
    ]
    # Two of arithmetic and eight that show whether the adapter acts.
    assert rest.count("base") == 10
    own, guard = result["tasks"]
    assert (own["baseline"]["model"], guard["baseline"]["model"]) == ("hosted-model", "base")
    cost = result["cost"]
    assert [side["name"] for side in cost["sides"]] == ["hosted-model", "icd"]
    per_request = cost["sides"][0]["per_request"]
    assert per_request is not None
    assert cost["break_even_requests"] == pytest.approx(90 / per_request, abs=1)
    assert (run.path / "evals/recordings/baseline.jsonl").exists()


def test_a_recording_stands_for_the_host_without_it(runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "hosted.jsonl"
    with run_host(LoopbackHost(reply=answer)) as far:
        run = runs.make(baseline=hosted(far, price=PRICE))
        live = runs.evaluate(run)
        before = result_of(run)
        config = run.load_config()
        assert record_baseline(run, config, file=file, console=CONSOLE) == 80
        # All of it had been asked before, but for the question whether the host answers.
        assert len(far.requests) == 80 + 2
    run = runs.make(baseline={"kind": "recorded", "path": str(file)})
    assert runs.evaluate(run) == live
    after = result_of(run)
    for name in ("delta", "interval", "p_value", "num_won", "num_lost"):
        assert after["tasks"][0][name] == before["tasks"][0][name]
    assert after["cost"]["sides"][0]["cost"] == before["cost"]["sides"][0]["cost"]
    assert after["tasks"][0]["baseline"]["name"] == "hosted-model (recorded)"
    # It stays the one file that it is.
    assert not (run.path / "evals/recordings/baseline.jsonl").exists()


def test_a_recording_says_when_it_was_asked_not_when_it_was_written(
    runs: Runs, host: LoopbackHost, tmp_path: Path
) -> None:
    run = runs.make(baseline=hosted(host))
    config = run.load_config()
    record_baseline(run, config, file=tmp_path / "first", console=CONSOLE)
    first = open_recording(tmp_path / "first").asked
    time.sleep(1.1)
    record_baseline(run, config, file=tmp_path / "again", console=CONSOLE)
    assert open_recording(tmp_path / "again").asked == first


def test_a_recording_of_other_parameters_is_refused_before_anything_is_asked(
    runs: Runs, host: LoopbackHost, tmp_path: Path
) -> None:
    file = tmp_path / "hosted.jsonl"
    run = runs.make(baseline=hosted(host))
    record_baseline(run, run.load_config(), file=file, console=CONSOLE)
    num_requests = len(host.requests)
    run = runs.make(baseline={"kind": "recorded", "path": str(file)}, max_tokens=20)
    with pytest.raises(UserError, match="max_tokens"):
        runs.evaluate(run)
    assert len(host.requests) == num_requests


def test_only_a_hosted_side_is_recorded(runs: Runs, tmp_path: Path) -> None:
    run = runs.make()
    with pytest.raises(UserError, match="only a hosted baseline can be recorded"):
        record_baseline(run, run.load_config(), file=tmp_path / "x", console=CONSOLE)
    assert not (tmp_path / "x").exists()


def test_nothing_is_asked_above_the_cost_that_is_allowed(runs: Runs, host: LoopbackHost) -> None:
    run = runs.make(baseline=hosted(host, price=PRICE, max_cost=0.000001))
    with pytest.raises(UserError, match="would cost about") as caught:
        runs.evaluate(run)
    assert "nothing was asked" in caught.value.what
    assert not host.requests


def test_money_of_two_kinds_is_told_before_anything_is_asked(
    runs: Runs, host: LoopbackHost
) -> None:
    run = runs.make(
        baseline=hosted(host, price=PRICE), own_cost={"per_month": 90, "currency": "EUR"}
    )
    with pytest.raises(UserError, match="different currencies: USD and EUR"):
        runs.evaluate(run)
    assert not host.requests


# Pilot, judge, two runs.


def test_a_pilot_tells_what_all_take_and_its_answers_are_taken_up(
    runs: Runs, host: LoopbackHost
) -> None:
    run = runs.make(baseline=hosted(host, price=PRICE))
    result = run_pilot(
        run, run.load_config(), limit=10, serve_side=runs.serve_side(run), console=CONSOLE
    )
    assert result["tasks"][0]["num_samples"] == 10
    assert not (run.path / "evals/comparison.json").exists()
    assert "80 requests" in CONSOLE.export_text()
    assert host.answered.total() == 30 + 1
    runs.evaluate(run)
    assert host.answered.total() == 120 + 2


def test_a_pilot_tells_of_a_whole_that_is_not_allowed(runs: Runs, host: LoopbackHost) -> None:
    run = runs.make(baseline=hosted(host, price=PRICE, max_cost=0.003))
    config = run.load_config()
    side = runs.serve_side(run)
    result = run_pilot(run, config, limit=5, serve_side=side, console=CONSOLE)
    assert result["tasks"][0]["num_samples"] == 5
    with pytest.raises(UserError, match="nothing was asked"):
        runs.evaluate(run)


def test_a_judge_decides_what_no_program_can(runs: Runs, host: LoopbackHost) -> None:
    def judge(model: str, messages: list[dict[str, str]]) -> str:
        if model != "judge":
            return answer(model, messages)
        text = messages[-1]["content"]
        # Prefers the answer that names a chapter in capitals, which the variant alone does.
        first = min((text.find(name) for name in CAPITALS if name in text), default=-1)
        other = text.find("It belongs to")
        if first == -1 or other == -1:
            return '{"verdict": "tie"}'
        return json.dumps({"verdict": "A" if first < other else "B"})

    host.reply = judge
    run = runs.make(
        metric="pairwise",
        num_examples=0,
        judge={"base_url": host.base_url, "model": "judge"},
    )
    runs.evaluate(run)
    [task] = result_of(run)["tasks"]
    assert task["judge"] is not None
    assert task["judge"]["flip_rate"] == 0
    assert (task["num_won"], task["num_lost"], task["num_tied"]) == (36, 0, 4)
    assert task["verdict"] == "better"


CAPITALS = ("CIRCULATORY", "DIGESTIVE", "NERVOUS", "RESPIRATORY", "SKIN")


def test_two_runs_are_compared_out_of_their_recordings(runs: Runs, host: LoopbackHost) -> None:
    first, second = runs.make("first"), runs.make("second")
    runs.evaluate(first)
    host.reply = lambda model, messages: "Skin" if model == "variant" else answer(model, messages)
    runs.evaluate(second)
    num_requests = len(host.requests)
    result = compare_runs(first, second, console=CONSOLE)
    assert len(host.requests) == num_requests
    [task] = result["tasks"]
    assert (task["baseline"]["name"], task["variant"]["name"]) == ("first", "second")
    assert (task["baseline"]["score"], task["variant"]["score"]) == (0.9, 0.2)
    assert (result["verdict"], result["promote"]) == ("worse", False)
    folder = second.path / "evals" / "against-first"
    assert sorted(file.name for file in folder.iterdir()) == [
        "comparison.json",
        "report.html",
        "report.md",
        "samples.jsonl",
    ]


# What stops an evaluation, and what it tells.


def test_a_primary_task_that_cannot_be_asked_stops_the_evaluation(
    runs: Runs, host: LoopbackHost
) -> None:
    run = runs.make()
    image: ImagePart = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    asked: Message = {"role": "user", "content": [image]}
    rows = [replace(row, messages=(asked, row.messages[1])) for row in chapter_rows(0, 4)]
    write_rows(run.path / "data" / "test.parquet", rows)
    host.capabilities = {"function_calling": True, "vision": False}
    with pytest.raises(UserError, match="the verdict rests on 'diagnosis to chapter'") as caught:
        runs.evaluate(run)
    assert "takes no images" in caught.value.what
    assert not host.requests


def test_prices_in_two_currencies_are_refused_before_anything_is_asked(
    runs: Runs, host: LoopbackHost
) -> None:
    cost = {"per_month": 90.0, "currency": "EUR"}
    run = runs.make(baseline=hosted(host, price=PRICE), own_cost=cost)
    with pytest.raises(UserError, match="in different currencies"):
        runs.evaluate(run)
    assert not host.requests


def test_the_report_tells_that_both_sides_were_asked_the_same(runs: Runs) -> None:
    run = runs.make()
    runs.evaluate(run)
    told = (run.path / "evals" / "report.md").read_text()
    assert "both sides got the same 40 requests" in told


# Votes.


def test_votes_of_the_run_are_reported_beside_the_verdict_without_asking_again(
    runs: Runs, host: LoopbackHost
) -> None:
    run = runs.make()
    runs.evaluate(run)
    before, num_requests = result_of(run), len(host.requests)
    assert "votes" not in before
    votes = [
        cast(str(n), number=n, models=("icd", "base"), client=f"c{n}", shown_first="ab"[n % 2])
        for n in range(6)
    ]
    keep(run.path / VOTES_FILE, votes)
    runs.evaluate(run)
    assert len(host.requests) == num_requests
    result = result_of(run)
    assert [(one["model"], one["num_won"]) for one in result["votes"]] == [("icd", 6)]
    assert {name: value for name, value in result.items() if name != "votes"} == before
    for name in ("report.html", "report.md"):
        assert "What people preferred" in (run.path / "evals" / name).read_text()


def test_a_broken_line_among_the_votes_leaves_the_earlier_verdict(
    runs: Runs, host: LoopbackHost
) -> None:
    run = runs.make()
    runs.evaluate(run)
    before, num_requests = result_of(run), len(host.requests)
    file = keep(run.path / VOTES_FILE, [cast()])
    file.write_text("{}\n" + file.read_text())
    with pytest.raises(UserError, match="holds no vote") as caught:
        runs.evaluate(run)
    assert caught.value.where == f"{file}:1"
    assert (result_of(run), len(host.requests)) == (before, num_requests)
