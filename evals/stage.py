"""The stage: who is asked in a run, in which order, and what is left in its `evals/` folder."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from configs.errors import UserError
from configs.evaluation_schema import HostedBaseline, Price, RecordedBaseline
from configs.run_directory import RunDirectory
from configs.schema import RunConfig
from configs.secrets import read_key
from data.compared_samples import SAMPLES_FILE
from data.votes import VOTES_FILE, Vote, read_votes
from evals.build_result import build_result
from evals.compare_runs import gather_two_runs
from evals.cost import Preview, check_currencies, format_money, preview
from evals.gather import Answers, Gathered, Gathering
from evals.judge.judging import judge_target
from evals.load_tasks import load_tasks, pilot_of
from evals.outputs import LOGS_FOLDER, VIEWER_FOLDER, write_outputs, write_side
from evals.preflight import Check, check_templates
from evals.progress import asking_bar
from evals.recording import open_recording
from evals.results import ComparisonResult, VoteResult
from evals.sides import Sides, of_baseline
from evals.table import print_result
from evals.targets import Target
from evals.task import EvaluationTask
from evals.votes import summarise_votes

ServeSide = Callable[[bool], AbstractContextManager[Target]]
"""Serves the base (true) or the variant (false) of the run for the length of a block."""


def evaluate_run(
    directory: RunDirectory, config: RunConfig, *, serve_side: ServeSide, console: Console
) -> dict[str, Any]:
    """Ask both sides, write the verdict and its reports to `evals/`, return facts for the manifest.

    Answers in `evals/logs` are never asked for again while the artefact, the prompt and its
    parameters are the same. Votes that the run's server has kept are reported beside the verdict,
    which does not rest on them. Errors: `UserError` for tasks that cannot be asked, for what the
    checks find, for a side that does not answer, and for a broken line among the votes; the answers
    until then are kept.
    """
    # Before a verdict is removed and anybody is asked: the file may be broken.
    votes = read_votes(directory.path / VOTES_FILE)
    folder = _clean(directory)
    found, result = _compare(directory, config, serve_side, folder=folder, console=console)
    if votes:
        result["votes"] = _summarise_votes(votes, config)
    write_outputs(folder, result, config=config, found=found, commands=_commands(directory))
    own = result["tasks"][0]
    return {
        "verdict": result["verdict"],
        "promote": result["promote"],
        "num_samples": own["num_samples"],
        "baseline_score": own["baseline"]["score"],
        "variant_score": own["variant"]["score"],
    }


def run_pilot(
    directory: RunDirectory,
    config: RunConfig,
    *,
    limit: int,
    serve_side: ServeSide,
    console: Console,
) -> ComparisonResult:
    """The evaluation on `limit` questions a task, and what the whole would take; writes only logs.

    A later evaluation takes the pilot's answers up. Errors as those of `evaluate_run`.
    """
    folder = directory.path / "evals"
    small = pilot_of(config, limit)
    found, result = _compare(directory, small, serve_side, folder=folder, console=console)
    print_result(result, console)
    if isinstance(config.evaluation.baseline, HostedBaseline):
        whole = load_tasks(config, directory.path / "data")
        _tell_preview(config, whole, console, pilot=found.answers["baseline"])
    return result


def record_baseline(
    directory: RunDirectory, config: RunConfig, *, file: Path, console: Console
) -> int:
    """Ask the hosted side alone and keep its answers in a portable file; returns their number.

    Needs prepared rows, but neither an adapter nor its base. Errors: `UserError` where the baseline
    is not a hosted one, and as those of `evaluate_run`.
    """
    settings = config.evaluation
    if not isinstance(settings.baseline, HostedBaseline):
        raise UserError(
            f"only a hosted baseline can be recorded; this one is of kind {settings.baseline.kind}",
            where="evaluation.baseline",
            remedy="set evaluation.baseline to {kind: hosted, …}",
        )
    target = _baseline_target(config)
    assert target is not None, "a hosted baseline is a target"
    tasks = _tasks(directory, config)
    _preview(config, tasks, console)
    logs = directory.path / "evals" / LOGS_FOLDER
    with asking_bar(console) as progress:
        asking = Gathering(
            sides=Sides(baseline=target), settings=settings, log_dir=logs, progress=progress
        )
        found = asking.ask_baseline(tasks)
    write_side(file, "baseline", found, config=config)
    return sum(len(answers) for answers in found.answers["baseline"].values())


def compare_runs(run_a: RunDirectory, run_b: RunDirectory, *, console: Console) -> ComparisonResult:
    """Two variants on the questions that both were asked: A as baseline, B as variant.

    Out of the recordings of both evaluations; nobody is asked. Writes
    `evals/against-<A>/` in B's run. Errors: `UserError` where too little is common.
    """
    config = run_b.load_config()
    folder = run_b.path / "evals" / f"against-{run_a.path.name}"
    folder.mkdir(parents=True, exist_ok=True)
    both = gather_two_runs(run_a, run_b)
    found = Gathered(
        tasks=[one.task for one in both.evidence],
        evidence=both.evidence,
        not_asked=both.not_compared,
        checks=[Check("common questions", False, told) for told in both.left_out],
    )
    result = build_result(found, config=config)
    command = f"tunery evaluate --compare {run_a.path.name} {run_b.path.name}"
    write_outputs(folder, result, config=config, found=found, commands=[command])
    print_result(result, console)
    return result


def _compare(
    directory: RunDirectory,
    config: RunConfig,
    serve_side: ServeSide,
    *,
    folder: Path,
    console: Console,
) -> tuple[Gathered, ComparisonResult]:
    tasks = _tasks(directory, config)
    sides = _sides(config, serve_side)
    if isinstance(config.evaluation.baseline, HostedBaseline):
        _preview(config, tasks, console)
    with asking_bar(console) as progress:
        asking = Gathering(
            sides=sides,
            settings=config.evaluation,
            log_dir=folder / LOGS_FOLDER,
            checks=[check_templates(directory.path, config)],
            progress=progress,
        )
        found = asking.gather(tasks)
    return found, build_result(found, config=config, price=_price(config))


def _summarise_votes(votes: Sequence[Vote], config: RunConfig) -> list[VoteResult]:
    settings = config.evaluation
    return summarise_votes(
        votes,
        confidence=settings.confidence,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        own=config.name,
    )


def _tasks(directory: RunDirectory, config: RunConfig) -> list[EvaluationTask]:
    directory.finished("prepare")
    return load_tasks(config, directory.path / "data")


def _sides(config: RunConfig, serve_side: ServeSide) -> Sides:
    judge = config.evaluation.judge
    key = judge.api_key_env if judge else None
    return Sides(
        variant=lambda: serve_side(False),
        base=(lambda: serve_side(True)) if config.needs_base else None,
        baseline=_baseline_target(config),
        judge=judge_target(
            judge, api_key=read_key(key, where="evaluation.judge.api_key_env") if key else None
        )
        if judge
        else None,
    )


def _baseline_target(config: RunConfig) -> Target | None:
    """The hosted or recorded side; None where the base is the baseline."""
    match config.evaluation.baseline:
        case HostedBaseline() as hosted:
            return Target(
                name=hosted.model,
                base_url=hosted.base_url,
                model=hosted.model,
                api_key=read_key(hosted.api_key_env) if hosted.api_key_env else None,
                requests_per_minute=hosted.requests_per_minute,
            )
        case RecordedBaseline() as recorded:
            recording = open_recording(recorded.path)
            return Target(
                name=f"{recording.name} (recorded)",
                base_url=recording.host,
                model=recording.model,
                revision=recording.sha256,
                recording=recorded.path,
            )
        case _:
            return None


def _price(config: RunConfig) -> Price | None:
    """What the baseline's host asks for tokens, as far as it is known."""
    match config.evaluation.baseline:
        case HostedBaseline() as hosted:
            return hosted.price
        case RecordedBaseline() as recorded:
            return recorded.price or open_recording(recorded.path).price
        case _:
            return None


def _preview(config: RunConfig, tasks: Sequence[EvaluationTask], console: Console) -> None:
    """Tell what asking the hosted side takes. Errors: `UserError` above `max_cost`."""
    hosted, expected = _tell_preview(config, tasks, console)
    if (
        hosted.max_cost is not None
        and expected.cost is not None
        and expected.cost > hosted.max_cost
    ):
        raise UserError(
            f"asking {hosted.model} would cost about "
            f"{format_money(expected.cost, expected.currency)}; nothing was asked",
            where="evaluation.baseline.max_cost",
            remedy="ask fewer questions (num_samples), or raise max_cost",
        )


def _tell_preview(
    config: RunConfig,
    tasks: Sequence[EvaluationTask],
    console: Console,
    pilot: Answers | None = None,
) -> tuple[HostedBaseline, Preview]:
    """Tell what asking the hosted side takes; pilot: its answers to some of the questions."""
    hosted = config.evaluation.baseline
    assert isinstance(hosted, HostedBaseline), "only a hosted side is paid for"
    check_currencies([hosted.price], config.evaluation.own_cost)
    asked = [(one.task, one.with_examples) for one in of_baseline(tasks)]
    expected = preview(asked, price=hosted.price, pilot=pilot)
    console.print(f"    [dim]{escape(hosted.model)}:[/] {expected.describe()}", soft_wrap=True)
    return hosted, expected


def _clean(directory: RunDirectory) -> Path:
    """The folder without an earlier verdict; the logs stay, whose answers may have cost money."""
    folder = directory.path / "evals"
    for name in ("comparison.json", "report.html", "report.md", SAMPLES_FILE):
        (folder / name).unlink(missing_ok=True)
    for name in ("recordings", VIEWER_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    return folder


def _commands(directory: RunDirectory) -> list[str]:
    return [f"tunery evaluate {directory.path.name}"]
