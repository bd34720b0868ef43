"""The command `tunery`: one sub-command a stage, and `run` for all of them.

Each stage's module is imported when it is asked for, so that `tunery --help` loads none of them.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.run_argument import RUNS, RunsOption, TargetArgument, open_or_create
from serve.access.key_commands import key_commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from configs.ray_stages import WorkStage
    from configs.run_directory import RunDirectory, StageName, StageResult
    from configs.schema import RunConfig
    from evals.stage import ServeSide
    from train.artefacts.yardstick import OpenGguf

app = typer.Typer(
    help="From domain data to a model of your own: prepare, train, merge, serve, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(key_commands, name="keys")

SERVER_START_SECONDS = 300.0
# As for a test that fails; 1 is an error, 2 a wrong call.
NOT_PROMOTED_STATUS = 3


@app.command()
def run(
    target: TargetArgument,
    runs: RunsOption = RUNS,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Run the stages on a Ray cluster: local, auto or host:port."
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --ray: where nodes share runs, such as s3://…"),
    ] = None,
) -> None:
    """All stages; those whose inputs have not changed are skipped, a killed one goes on."""
    from configs.run_directory import STAGES
    from configs.run_storage import RunStorage, is_url
    from evals.table import print_comparison

    if storage is not None and ray is None:
        raise typer.BadParameter("--storage is for --ray; without it give a folder by --runs")
    console = _console()
    shared = RunStorage(storage) if storage is not None and is_url(storage) else None
    runs = Path(storage) if storage is not None and shared is None else runs
    directory, config = open_or_create(target, runs)
    if config.evaluation.baseline.kind == "hosted" and config.evaluation.baseline.api_key_env:
        from configs.secrets import read_key

        # Better now than after hours of training.
        read_key(config.evaluation.baseline.api_key_env)
    if config.train.trackers:
        from train.trackers import check_trackers

        check_trackers(config.train.trackers)
    console.print(f"[bold]{config.name}[/]  {config.description}", soft_wrap=True)
    if ray is None:
        _run_stages(directory, config, STAGES, console)
    else:
        from configs.ray_cluster import open_cluster
        from configs.ray_stages import StagesOnRay

        with open_cluster(ray):
            on_ray = StagesOnRay(work_stage, storage=shared)
            _run_stages(directory, config, STAGES, console, work=on_ray.work)
    print_comparison(directory.path / "evals" / "comparison.json", console)
    _print_next_steps(directory, config, console)


@app.command()
def plan(
    target: TargetArgument,
    runs: RunsOption = RUNS,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Memory of the card to plan for; what is here without it.", metavar="SIZE"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Memory, time and disk of a training, before anything is loaded."""
    import json

    from configs.load import load_config
    from configs.run_directory import open_run
    from train.plan.budget import find_budget
    from train.plan.build import build_plan
    from train.plan.data_facts import read_data_facts
    from train.plan.show import plan_to_json, print_plan

    is_file = target.endswith((".yaml", ".yml"))
    directory = None if is_file else open_run(Path(target) if "/" in target else runs / target)
    config = load_config(Path(target)) if directory is None else directory.load_config()
    folder = runs / config.name if directory is None else directory.path
    data = read_data_facts(folder, config.model)
    budget = find_budget(gpu)
    found = build_plan(config, budget_gib=budget.gib, device=budget.device, data=data)
    if as_json:
        typer.echo(json.dumps(plan_to_json(found), indent=2))
    else:
        print_plan(found, _console())


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
def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="CONFIG|RUN...", help="The run; two of them with --compare."),
    ],
    runs: RunsOption = RUNS,
    limit: Annotated[
        int | None,
        typer.Option(help="A pilot: ask so many questions a task, and tell what all take.", min=2),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Ask the hosted side alone and keep its answers in this file."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Hold the second run's variant against the first's.")
    ] = False,
    gate: Annotated[
        bool,
        typer.Option("--gate", help=f"End with status {NOT_PROMOTED_STATUS} unless promoted."),
    ] = False,
) -> None:
    """The served variant against its baseline on held-out rows: a verdict and a report."""
    if len(targets) != (2 if compare else 1):
        raise typer.BadParameter("--compare takes two runs, everything else one")
    if sum((limit is not None, record is not None, compare)) > 1:
        raise typer.BadParameter("--limit, --record and --compare are for one each")
    if gate and record is not None:
        raise typer.BadParameter("--gate needs a verdict, and --record comes to none")
    console = _console()
    opened = [open_or_create(target, runs) for target in targets]
    directory, config = opened[0]
    if record is not None:
        from evals.stage import record_baseline

        with directory.lock():
            num_answers = record_baseline(directory, config, file=record, console=console)
        console.print(f"{num_answers:,} answers kept in {record}", markup=False, soft_wrap=True)
        return
    if compare:
        from evals.stage import compare_runs

        result = compare_runs(directory, opened[1][0], console=console)
    elif limit is not None:
        from evals.stage import run_pilot

        served = serve_side(directory, config)
        with directory.lock():
            result = run_pilot(directory, config, limit=limit, serve_side=served, console=console)
    else:
        from evals.table import print_comparison

        _run_stages(directory, config, ["evaluate"], console)
        result = print_comparison(directory.path / "evals" / "comparison.json", console)
    if gate and not result["promote"]:
        raise typer.Exit(NOT_PROMOTED_STATUS)


@app.command()
def serve(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG|RUN...", help="What to serve; several share the base that they tune."
        ),
    ],
    runs: RunsOption = RUNS,
    base: Annotated[bool, typer.Option("--base", help="Serve the untuned base instead.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = None,
) -> None:
    """Answer chat completions with the variant, until Ctrl-C."""
    from serve.of_runs import settings_of_run, settings_of_runs
    from serve.request_log import configure_logging
    from serve.server import run_server
    from serve.workbench.folder import has_workbench

    opened = [open_or_create(target, runs) for target in targets]
    checkpoint = _vllm_base(opened[0][1])
    if len(opened) > 1 and base:
        raise typer.BadParameter("several runs have their base beside them, under its own name")
    if len(opened) > 1:
        settings = settings_of_runs(opened, checkpoint=checkpoint)
    else:
        settings = settings_of_run(opened[0], base=base, checkpoint=checkpoint)
    given = {"host": host, "port": port}
    changed = {name: value for name, value in given.items() if value is not None}
    serve_config = settings.serve.model_copy(update=changed)
    names = [variant.name for variant in settings.variants]
    console = _console()
    configure_logging()

    def on_ready(url: str) -> None:
        told = _how_to_call(url, names, has_page=has_workbench(serve_config))
        console.print(told, markup=False, soft_wrap=True)

    run_server(settings.model_copy(update={"serve": serve_config}), on_ready=on_ready)


@app.command()
def chat(
    target: TargetArgument,
    runs: RunsOption = RUNS,
    base: Annotated[bool, typer.Option("--base", help="Chat with the untuned base.")] = False,
) -> None:
    """Talk with the variant in the terminal."""
    from serve.chat import chat as converse
    from serve.of_runs import as_measured, settings_of_run
    from serve.process import start_interface

    directory, config = open_or_create(target, runs)
    checkpoint = _vllm_base(config)
    settings = as_measured(settings_of_run((directory, config), base=base, checkpoint=checkpoint))
    log = directory.path / "serve" / "chat.log"
    with start_interface(settings, timeout_s=SERVER_START_SECONDS, log=log) as server:
        converse(f"{server.url}/v1", settings.variants[0].name, console=_console())


@app.command()
def status(runs: RunsOption = RUNS) -> None:
    """List the runs and the state of their stages."""
    from configs.status import build_status_table

    _console().print(build_status_table(runs))


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def _run_one_stage(stage: "StageName", target: str, runs: Path) -> None:
    directory, config = open_or_create(target, runs)
    _run_stages(directory, config, [stage], _console())


def _run_stages(
    directory: "RunDirectory",
    config: "RunConfig",
    stages: "Sequence[StageName]",
    console: "Console",
    *,
    work: "WorkStage | None" = None,
) -> None:
    from configs.status import summarize_facts

    work = work or work_stage
    with directory.lock():
        for number, stage in enumerate(stages, start=1):
            console.print(f"[dim]{number}/{len(stages)}[/] {stage}")
            result = work(stage, directory, config, console)
            state = "unchanged, skipped" if result.skipped else f"done in {result.seconds:.0f} s"
            console.print(f"    [green]{state}[/]  [dim]{summarize_facts(stage, result.facts)}[/]")
            if stage != "prepare" and not result.skipped:
                from train.model_card import write_card

                write_card(directory)


def work_stage(
    stage: "StageName",
    directory: "RunDirectory",
    config: "RunConfig",
    console: "Console",
    *,
    on_ray: bool = False,
) -> "StageResult":
    """Do one stage of a run, unless that has been done; on_ray: this is a task of a cluster."""
    match stage:
        case "prepare":
            from data.prepare_stage import prepare_stage

            return prepare_stage(directory, config, console, on_ray=on_ray)
        case "train":
            from train.train_stage import train_stage

            return train_stage(directory, config, console, on_ray=on_ray)
        case "merge":
            from train.merge_stage import merge_stage

            return merge_stage(directory, config, console, find_opener=lambda: _gguf_opener(config))
        case "evaluate":
            from evals.evaluate_stage import evaluate_stage

            return evaluate_stage(directory, config, console, serve_side=serve_side)


def _gguf_opener(config: "RunConfig") -> "OpenGguf":
    """Opens a GGUF in the engine that serves it."""
    from serve.engines.num_threads import default_num_threads
    from serve.llama_scorer import open_gguf

    num_threads = config.serve.num_threads or default_num_threads()
    return lambda file, num_tokens: open_gguf(
        file, num_threads=num_threads, context_length=num_tokens
    )


def serve_side(directory: "RunDirectory", config: "RunConfig") -> "ServeSide":
    """How the evaluation has the base or the variant served: as users are."""
    from contextlib import contextmanager

    from evals.targets import Target
    from serve.of_runs import as_measured, settings_of_run
    from serve.process import start_interface

    hashes = directory.finished("merge")["outputs"]

    @contextmanager
    def serve(base: bool) -> "Iterator[Target]":
        checkpoint = _vllm_base(config)
        run = (directory, config)
        settings = as_measured(settings_of_run(run, base=base, checkpoint=checkpoint))
        [served] = settings.variants
        assert served.artefact is not None, "it is no adapter"
        log = directory.path / "evals" / f"server-{served.artefact.stem}.log"
        made_here = served.artefact.is_relative_to(directory.path)
        place = str(served.artefact.relative_to(directory.path)) if made_here else ""
        revision = hashes[place]["sha256"] if made_here else ""
        with start_interface(settings, timeout_s=SERVER_START_SECONDS, log=log) as server:
            url = f"{server.url}/v1"
            yield Target(name=served.name, base_url=url, model=served.name, revision=revision)

    return serve


def _vllm_base(config: "RunConfig") -> Path | None:
    """The base's folder where vLLM is to load it; llama.cpp has an artefact of its own."""
    if config.serve.engine.kind != "vllm":
        return None
    from data.models.model_source import resolve_checkpoint

    return resolve_checkpoint(config.model)


def _how_to_call(url: str, names: "Sequence[str]", *, has_page: bool) -> str:
    name = names[0]
    page = f"In the browser: {url}/\n" if has_page else ""
    return (
        f"{', '.join(names)} answers at {url}/v1 (Ctrl-C ends it).\n"
        f"{page}From another terminal:\n\n"
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{name}", '
        '"messages": [{"role": "user", "content": "Hello"}]}\''
    )


def _print_next_steps(directory: "RunDirectory", config: "RunConfig", console: "Console") -> None:
    command = os.path.relpath(sys.argv[0]) if os.sep in sys.argv[0] else sys.argv[0]
    # A path names a run wherever it stands; the name alone is looked for in `runs/`.
    name = config.name if directory.path.parent == RUNS else str(directory.path)
    report = directory.path / "evals" / "report.html"
    console.print(
        f"\nChat with it:     {command} chat {name}\n"
        f"Serve it:         {command} serve {name}\n"
        f"Open the report:  python3 -m webbrowser {report}\n"
        f"Data report:      {directory.path / 'data' / 'report.html'}\n"
        f"Training report:  {directory.path / 'train' / 'report.html'}\n"
        f"Merge report:     {directory.path / 'merge' / 'report.html'}\n"
        f"Model card:       {directory.path / 'README.md'}",
        soft_wrap=True,
        markup=False,
    )


def main() -> None:
    """Run the command; what a user can mend ends as a message, never as a traceback."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # How long torch's threads spin before they sleep: short of the default, with which they
        # stall for minutes beside another busy process (docs/training.md).
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # bitsandbytes warns on import, on every CPU, that an optional kernel package is absent.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from configs.errors import INTERRUPTED_STATUS, Interrupted, UserError, is_disk_full
    from configs.telemetry import disable_telemetry

    disable_telemetry()
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except Interrupted as error:
        _fail(f"{error}; the same command goes on from there", status=INTERRUPTED_STATUS)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on where this one stopped", status=130)
    except Exception as error:
        if not is_disk_full(error):
            raise
        _fail(
            f"the disk is full: {error}\n  to do: free some space and run the same command again; "
            "nothing half-written stands under a final name"
        )


def _fail(message: str, *, status: int = 1) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print("[bold red]error[/]", end=" ")
    print(message, file=sys.stderr)  # noqa: T201 - as it is, without markup
    sys.exit(status)


if __name__ == "__main__":
    main()
