"""Pages that are one file each, in which no text can act as markup."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


def load_page(file: Path, filters: Mapping[str, Callable[..., Any]]) -> Template:
    """A page's template: texts are escaped, and a name that is not there is an error."""
    environment = Environment(
        loader=FileSystemLoader(file.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(file.name)
