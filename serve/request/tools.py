"""The tools of a request, and which of them the answer may or must call."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from data.conversation import ToolDefinition
from serve.engine import ForcedFunction
from serve.engine import ToolChoice as EngineToolChoice
from serve.request.body import Body, FunctionName, JsonObject, refuse

MAX_TOOLS = 128


class FunctionDefinition(Body):
    """What a function is called, does and takes."""

    name: FunctionName
    description: str | None = None
    """Tells the model what the function does and when to call it."""
    parameters: JsonObject | None = None
    """JSON schema of an object; a function without parameters when absent."""
    strict: bool = False
    """Hold the arguments of calls to `parameters`."""


class Tool(Body):
    """A function that the answer may call."""

    type: Literal["function"] = "function"
    function: FunctionDefinition

    def definition(self) -> ToolDefinition:
        """In OpenAI's form, without what was not given: templates print it as it is."""
        function = self.function.model_dump(exclude_none=True)
        if not self.function.strict:
            del function["strict"]
        return {"type": "function", "function": function}


class NamedFunction(Body):
    """The function to call."""

    name: FunctionName


class NamedTool(Body):
    """The answer is to call this function."""

    type: Literal["function"] = "function"
    function: NamedFunction


def _spelling(choice: object) -> str:
    return "mode" if isinstance(choice, str) else "function"


Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)]
ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "any", "required"], Tag("mode")]
    | Annotated[NamedTool, Tag("function")],
    Discriminator(_spelling),
]


def check_tools(tools: Sequence[Tool], choice: str | NamedTool) -> None:
    """Raise for two tools of one name, and for a choice that the tools do not offer."""
    names = [tool.function.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            refuse(f"two tools have the name {name}", "tools", index, "function", "name")
    if isinstance(choice, NamedTool):
        if choice.function.name not in names:
            message = f"{choice.function.name} is not among the tools"
            refuse(message, "tool_choice", "function", "name")
    elif choice in ("any", "required") and not tools:
        refuse(f"{choice} needs tools to choose from", "tool_choice")


def to_engine_choice(choice: str | NamedTool) -> EngineToolChoice:
    """The one form of both spellings."""
    if isinstance(choice, NamedTool):
        return ForcedFunction(choice.function.name)
    return "required" if choice == "any" else choice  # type: ignore[return-value]
