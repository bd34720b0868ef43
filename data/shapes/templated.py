"""Rows of any other columns, by two Jinja templates over them."""

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from configs.data_schema import TemplateShape
from configs.errors import UserError
from data.checks import RowError
from data.shapes.columns import Converter, Row, Turns, question_turns


def template_converter(shape: TemplateShape) -> Converter:
    """Rows by the templates of their two turns; `UserError` for a template that is not valid."""
    prompt = _compile("prompt", shape.prompt)
    answer = _compile("answer", shape.answer)

    def convert(row: Row) -> Turns:
        return question_turns(_render("prompt", prompt, row), _render("answer", answer, row))

    return convert


def _compile(name: str, text: str) -> Template:
    # An empty cell is empty text: as the word "None" it would be learned.
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, finalize=lambda value: "" if value is None else value
    )
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise UserError(
            f"the template of {name!r} is not valid Jinja: {error}",
            where=f"shape.{name}: {text[:80]}",
            remedy="mend the template in the configuration",
        ) from error


def _render(name: str, template: Template, row: Row) -> str:
    try:
        return template.render(row).strip()
    except UndefinedError as error:
        raise RowError(f"the template of {name!r} asks for what is not there: {error}") from error
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise RowError(f"the template of {name!r} fails: {error}") from error
    except RecursionError as error:
        raise RowError(f"the template of {name!r} meets a value nested too deeply") from error
