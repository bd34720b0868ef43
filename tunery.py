"""The command `tunery`: one sub-command a stage, and `run` for all of them.

Each stage's module is imported when it is asked for, so that `tunery --help` loads none of them.
"""

import errno
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from configs.run_directory import RunDirectory, StageName, StageResult
    from configs.schema import RunConfig

app = typer.Typer(
    help="From domain data to a model of your own: prepare, train, merge, serve, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

TargetArgument = Annotated[
    str, typer.Argument(metavar="CONFIG|RUN", help="A configuration file, or the name of a run.")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of the run directories.")]
RUNS = Path("runs")


@app.command()
def run(target: TargetArgument, runs: RunsOption = RUNS) -> None:
    """All stages; those whose inputs have not changed are skipped, a killed one goes on."""
    from configs.run_directory import STAGES
    from evals.table import print_comparison

    console = _console()
    directory, config = _open_or_create(target, runs)
    console.print(f"[bold]{config.name}[/]  {config.description}")
    _run_stages(directory, config, STAGES, console)
    print_comparison(directory.path / "evals" / "comparison.json", console)
    _print_next_steps(directory, config, console)


@app.command()
def prepare(target: TargetArgument, runs: RunsOption = RUNS) -> None:
    """Rows of the source: train, validation and test rows, with a report."""
    _run_one_stage("prepare", target, runs)


@app.command()
def train(target: TargetArgument, runs: RunsOption = RUNS) -> None:
    """Prepared rows: a LoRA adapter on the 4-bit base (QLoRA)."""
    _run_one_stage("train", target, runs)


@app.command()
def merge(target: TargetArgument, runs: RunsOption = RUNS) -> None:
    """Base and adapter: a merged bf16 checkpoint and the artefact that is served."""
    _run_one_stage("merge", target, runs)


@app.command()
def evaluate(target: TargetArgument, runs: RunsOption = RUNS) -> None:
    """The served variant against its baseline on held-out rows: a verdict and a report."""
    from evals.table import print_comparison

    _run_one_stage("evaluate", target, runs)
    directory, _ = _open_or_create(target, runs)
    print_comparison(directory.path / "evals" / "comparison.json", _console())


@app.command()
def serve(
    target: TargetArgument,
    runs: RunsOption = RUNS,
    base: Annotated[bool, typer.Option("--base", help="Serve the untuned base instead.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Answer chat completions with the variant, until Ctrl-C."""
    from serve.server import run_server

    directory, config = _open_or_create(target, runs)
    settings = config.serve
    run_server(
        _server_settings(
            directory,
            config,
            base=base,
            host=host or settings.host,
            port=settings.port if port is None else port,
        )
    )


@app.command()
def status(runs: RunsOption = RUNS) -> None:
    """List the runs and the state of their stages."""
    from configs.status import build_status_table

    _console().print(build_status_table(runs))


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def _open_or_create(target: str, runs: Path) -> "tuple[RunDirectory, RunConfig]":
    """The run of a configuration file, of a run directory, or of a run's name."""
    from configs.load import load_config
    from configs.run_directory import create_run, open_run

    if target.endswith((".yaml", ".yml")):
        config = load_config(Path(target))
        return create_run(config, runs), config
    directory = open_run(Path(target) if "/" in target else runs / target)
    return directory, directory.load_config()


def _run_one_stage(stage: "StageName", target: str, runs: Path) -> None:
    directory, config = _open_or_create(target, runs)
    _run_stages(directory, config, [stage], _console())


def _run_stages(
    directory: "RunDirectory", config: "RunConfig", stages: "Any", console: "Console"
) -> None:
    works = {
        "prepare": _prepare,
        "train": _train,
        "merge": _merge,
        "evaluate": _evaluate,
    }
    with directory.lock():
        for number, stage in enumerate(stages, start=1):
            console.print(f"[dim]{number}/{len(stages)}[/] {stage}")
            result = works[stage](directory, config, console)
            state = "unchanged, skipped" if result.skipped else f"done in {result.seconds:.0f} s"
            console.print(f"  [green]{state}[/]  [dim]{_tell(stage, result.facts)}[/]")
