"""A data set on the hub, or any folder that `datasets.load_dataset` reads, by two templates."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import datasets
from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from configs.errors import UserError
from configs.schema import HubDataSource
from data.checks import RowError, parse_messages
from data.conversation import Conversation, Reject, SourceRows

FixedSide = Literal["train", "test", ""]


class Templates(NamedTuple):
    """The compiled templates of a row's two turns, under their names in the configuration."""

    prompt: Template
    answer: Template


def load(source: HubDataSource) -> SourceRows:
    """Read the training split and, where there is one, the official test split.

    Errors: `UserError` for a split that cannot be read, and for a template that is not valid or
    does not fit the columns. A row whose turns come out empty is a reject.
    """
    templates = _compile_templates(source)
    # Without an official test split the rows are free to be held out.
    splits: list[tuple[str, FixedSide]] = [(source.train_split, "")]
    if source.test_split is not None:
        splits = [(source.train_split, "train"), (source.test_split, "test")]
    conversations: list[Conversation] = []
    rejects: list[Reject] = []
    for split, side in splits:
        for where, row in _read_split(source, split):
            texts = {
                "prompt": _render(templates, "prompt", row, where),
                "completion": _render(templates, "answer", row, where),
            }
            try:
                messages = parse_messages(texts)
            except RowError as error:
                rejects.append(Reject(where=where, reason=str(error)))
            else:
                conversations.append(Conversation(id=where, messages=messages, side=side))
    return SourceRows(
        conversations=conversations,
        num_read=len(conversations) + len(rejects),
        licence=source.licence,
        attribution=source.attribution or source.id,
        rejects=rejects,
    )


def _read_split(source: HubDataSource, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        rows = datasets.load_dataset(
            source.id, source.subset, split=split, revision=source.revision, streaming=True
        )
        for number, row in enumerate(rows):
            yield f"{source.id}[{split}][{number}]", row
    except (OSError, ValueError, RuntimeError, StopIteration) as error:
        # An empty file makes the reader stop where it looks for the columns.
        told = "it holds no rows" if isinstance(error, StopIteration) else str(error)
        first_line = (told or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot read split {split!r} of {source.id}: {first_line}",
            where="data.source",
            remedy="check id, subset, revision and split names, and the network",
        ) from error


def _compile_templates(source: HubDataSource) -> Templates:
    # An empty cell is empty text: as the word "None" it would be learned.
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, finalize=lambda value: "" if value is None else value
    )
    compiled = {}
    for name, text in (("prompt", source.prompt), ("answer", source.answer)):
        try:
            compiled[name] = environment.from_string(text)
        except TemplateError as error:
            raise UserError(
                f"the template of {name!r} is not valid Jinja: {error}",
                where=f"data.source.{name}",
                remedy="mend the template in the configuration",
            ) from error
    return Templates(**compiled)


def _render(
    templates: Templates, name: Literal["prompt", "answer"], row: Mapping[str, Any], where: str
) -> str:
    try:
        return str(getattr(templates, name).render(row))
    except UndefinedError as error:
        raise UserError(
            f"the template of {name!r} asks for what is not there: {error}",
            where=f"data.source.{name} ({where})",
            remedy=f"the columns are: {', '.join(row)}",
        ) from error
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"the template of {name!r} fails: {error}",
            where=f"data.source.{name} ({where})",
            remedy=f"mend the template in the configuration; the columns are: {', '.join(row)}",
        ) from error
