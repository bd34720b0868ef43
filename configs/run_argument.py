"""How commands name a run: by a configuration file, by its directory, or by its name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from configs.run_directory import RunDirectory
    from configs.schema import RunConfig

TargetArgument = Annotated[
    str, typer.Argument(metavar="CONFIG|RUN", help="A configuration file, or the name of a run.")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of the run directories.")]
RUNS = Path("runs")


class OpenedRun(NamedTuple):
    """A run directory and the configuration that it holds."""

    directory: "RunDirectory"
    config: "RunConfig"


def open_or_create(target: str, runs: Path) -> OpenedRun:
    """The run of a configuration file, which is made where it is not there, or an existing one."""
    from configs.load import load_config
    from configs.run_directory import create_run, open_run

    if target.endswith((".yaml", ".yml")):
        config = load_config(Path(target))
        return OpenedRun(create_run(config, runs), config)
    directory = open_run(Path(target) if "/" in target else runs / target)
    return OpenedRun(directory, directory.load_config())
