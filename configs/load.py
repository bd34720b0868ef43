"""From a sparse YAML file to a complete, checked configuration, or one clear error."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from configs.errors import UserError
from configs.schema import RunConfig

Location = tuple[int | str, ...]
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def load_config(path: Path) -> RunConfig:
    """Read `path`, merge what it `extends:` and check it.

    Errors: `UserError` with file, line and key, and for an unknown key the nearest known one.
    """
    tree, lines = _read_with_parents(path, seen=())
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        # A misspelt key is often two errors, unknown and missing: the first one explains both.
        errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise _explain(errors[0], len(errors), lines, path) from error


def save_config(config: RunConfig, path: Path) -> None:
    """Write the complete configuration as YAML, defaults included."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with path.open("w", encoding="utf-8") as handle:
        yaml.dump(config.model_dump(mode="json"), handle)


def _read_with_parents(
    path: Path, *, seen: tuple[Path, ...]
) -> tuple[dict[str, Any], dict[Location, str]]:
    """The merged tree of `path` and its parents, and where each key stands as `file:line`."""
    if path.resolve() in seen:
        raise UserError(
            "`extends` goes round in a circle",
            where=" -> ".join(str(p) for p in (*seen, path)),
            remedy="remove one of the `extends` keys",
        )
    tree = _read_mapping(path)
    lines = {location: f"{path}:{line}" for location, line in _positions(tree, ())}
    parent_name = tree.pop("extends", None)
    own = _resolve_local_paths(_plain_mapping(tree), path.parent, lines, ())
    if parent_name is None:
        return own, lines
    parent_file = path.parent / str(parent_name)
    if not parent_file.is_file():
        raise UserError(
            f"`extends` names a file that is not there: {parent_file}",
            where=lines["extends",],
            remedy=_nearby(parent_file),
        )
    parent, parent_lines = _read_with_parents(parent_file, seen=(*seen, path.resolve()))
    return _merge(parent, own), parent_lines | lines


def _read_mapping(path: Path) -> CommentedMap:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("configuration file not found", where=path, remedy=_nearby(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the configuration: {error}",
            where=path,
            remedy="give a readable YAML file in UTF-8",
        ) from error
    try:
        tree = YAML(typ="rt", pure=True).load(text)
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        problem = (error.problem if isinstance(error, MarkedYAMLError) else None) or str(error)
        raise UserError(
            f"not valid YAML: {problem}",
            where=f"{path}:{mark.line + 1}" if mark else path,
            remedy="mend the line (indentation, colon, quotes or a key given twice)",
        ) from error
    if not isinstance(tree, CommentedMap):
        raise UserError(
            "a configuration is a mapping of sections",
            where=path,
            remedy="start from one of the files in configs/",
        )
    return tree


def _nearby(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path("configs")
    names = sorted(str(p) for p in folder.glob("*.yaml"))
    close = difflib.get_close_matches(str(path), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"one of: {', '.join(names)}" if names else "check the path"


def _positions(node: object, at: Location) -> Iterator[tuple[Location, int]]:
    """Each key's location and its line, counted from 1."""
    if isinstance(node, CommentedMap):
        for key, value in node.items():
            # Keys that a YAML merge (`<<: *anchor`) brings in have no line in this mapping.
            if key in (node.lc.data or {}):
                yield (*at, key), node.lc.key(key)[0] + 1
            yield from _positions(value, (*at, key))
    elif isinstance(node, CommentedSeq):
        for number, value in enumerate(node):
            yield (*at, number), node.lc.item(number)[0] + 1
            yield from _positions(value, (*at, number))


def _plain_mapping(node: Mapping[Any, object]) -> dict[str, Any]:
    """`node` in built-in types: the strict schema takes no subclasses for numbers or lists."""
    return {str(key): _plain(value) for key, value in node.items()}


def _plain(node: object) -> object:
    if isinstance(node, Mapping):
        return _plain_mapping(node)
    if isinstance(node, list):
        return [_plain(item) for item in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _resolve_local_paths(
    tree: dict[str, Any], folder: Path, lines: dict[Location, str], at: Location
) -> dict[str, Any]:
    """Each `path`, `..._path` and local `id` as seen from the folder of the file that names it."""
    return {
        key: _resolve_local_path(value, folder, lines, (*at, key))
        if key == "path" or key.endswith("_path") or (key == "id" and _is_local(value))
        else _resolve_inside(value, folder, lines, (*at, key))
        for key, value in tree.items()
    }


def _is_local(id: object) -> bool:
    """Whether an id is that of a local folder, and not of a repository on the hub."""
    return isinstance(id, str) and id.startswith(("./", "../", "~"))


def _resolve_inside(
    value: object, folder: Path, lines: dict[Location, str], at: Location
) -> object:
    if isinstance(value, dict):
        return _resolve_local_paths(value, folder, lines, at)
    if isinstance(value, list):
        return [_resolve_inside(item, folder, lines, (*at, n)) for n, item in enumerate(value)]
    return value


def _resolve_local_path(
    value: object, folder: Path, lines: dict[Location, str], at: Location
) -> object:
    """One path, or a list of them, absolute and with its environment variables filled in."""
    if isinstance(value, list):
        return [_resolve_local_path(item, folder, lines, at) for item in value]
    if not isinstance(value, str):
        return value
    expanded = os.path.expandvars(value)
    unset = VARIABLE.search(expanded)
    if unset:
        raise UserError(
            f"the environment variable {unset[1] or unset[2]} is not set",
            where=f"{lines.get(at, folder)}: {value}",
            remedy=f"export {unset[1] or unset[2]}=... before this command",
        )
    return str((folder / Path(expanded).expanduser()).resolve())


def _merge(parent: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `parent`, section by section; a section of another `kind` replaces the whole."""
    merged = dict(parent)
    for key, value in own.items():
        before = merged.get(key)
        if (
            isinstance(before, dict)
            and isinstance(value, dict)
            and value.get("kind", before.get("kind")) == before.get("kind")
        ):
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged


def _explain(
    error: ErrorDetails,
    num_errors: int,
    lines: dict[Location, str],
    path: Path,
) -> UserError:
    section, key_path = _follow(error["loc"])
    name = ".".join(str(part) for part in key_path)
    more = f" ({num_errors - 1} more after this one)" if num_errors > 1 else ""
    # The nearest key that is written down: a missing one is reported at its section.
    written = next(
        (key_path[:n] for n in range(len(key_path), 0, -1) if key_path[:n] in lines), None
    )
    where = lines[written] if written else path
    if error["type"] == "extra_forbidden":
        fields = list(section.model_fields) if section else []
        known = [field for field in fields if field != "kind"] or fields
        close = difflib.get_close_matches(str(key_path[-1]), known, n=1, cutoff=0.4)
        remedy = f"did you mean `{close[0]}`?" if close else f"known keys: {', '.join(known)}"
        return UserError(f"unknown key `{name}`{more}", where=where, remedy=remedy)
    if error["type"] == "missing":
        return UserError(
            f"`{name}` is missing{more}", where=where, remedy=_field_help(section, key_path)
        )
    message = error["msg"].removeprefix("Value error, ")
    message = f"{f'`{name}`: ' if name else ''}{message[0].lower()}{message[1:]}{more}"
    return UserError(message, where=where, remedy=_field_help(section, key_path))


def _follow(loc: Location) -> tuple[type[BaseModel] | None, Location]:
    """The section that holds the last key of a pydantic location, and the key's path in YAML.

    pydantic puts the tag of a chosen union member, or a member's type, between the keys; YAML has
    no such levels.
    """
    section: type[BaseModel] | None = RunConfig
    choices: list[Any] = [RunConfig]
    key_path: Location = ()
    for part in loc:
        models = [choice for choice in choices if _is_section(choice)]
        if isinstance(part, int):
            key_path = (*key_path, part)
            items = [get_args(choice)[0] for choice in choices if get_origin(choice) is list]
            choices = [leaf for item in items for leaf in _leaves(item)]
        elif tagged := [model for model in models if len(models) > 1 and _tag(model) == part]:
            choices = tagged
        elif len(models) == 1 or not choices:
            section = models[0] if models else None
            key_path = (*key_path, part)
            field = section.model_fields.get(part) if section else None
            choices = _leaves(field.annotation) if field else []
    return section, key_path


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _tag(section: type[BaseModel]) -> str:
    """The `kind` that chooses this member of a union."""
    return str(get_args(section.model_fields["kind"].annotation)[0])


def _leaves(annotation: Any) -> list[Any]:  # noqa: ANN401 (any form of type)
    """The members of a union, however it is nested."""
    if get_origin(annotation) is Annotated:
        return _leaves(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [leaf for member in get_args(annotation) for leaf in _leaves(member)]
    return [annotation]


def _field_help(section: type[BaseModel] | None, key_path: Location) -> str:
    field = section.model_fields.get(str(key_path[-1])) if section and key_path else None
    if field and field.description:
        return f"{key_path[-1]}: {field.description}"
    return "see configs/schema.py and data_schema.py for each section's fields"
