"""`tunery keys`: the API keys that a server asks for.

The command imports this at its start, and what the sub-commands need only when they are called.
"""

from pathlib import Path
from typing import Annotated

import typer

key_commands = typer.Typer(
    help="API keys that the server asks for (serve.api_keys_path).", no_args_is_help=True
)

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The file that serve.api_keys_path names.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")]


@key_commands.command("add")
def add_key(
    file: FileArgument,
    name: NameArgument,
    per_minute: Annotated[
        int | None, typer.Option(help="Requests a minute that it is good for.")
    ] = None,
    days: Annotated[float | None, typer.Option(help="Days after which it expires.")] = None,
) -> None:
    """Make a key and print it, once: the file holds only its hash."""
    from serve.access import commands

    key = commands.add_key(file, name, requests_per_minute=per_minute, expires_after_days=days)
    typer.echo(key)


@key_commands.command("remove")
def remove_key(file: FileArgument, name: NameArgument) -> None:
    """End a key; running servers let it in no more."""
    from serve.access import commands

    commands.remove_key(file, name)


@key_commands.command("list")
def list_keys(file: FileArgument) -> None:
    """Names and terms of the keys."""
    from rich.console import Console

    from serve.access import commands

    Console(highlight=False).print(commands.build_key_table(file))
