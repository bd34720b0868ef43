"""A conversation in the terminal with a served model, over the same interface as any client."""

from openai import APIConnectionError, APIStatusError, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from rich.console import Console

MAX_TOKENS = 256


def chat(base_url: str, model: str, *, console: Console, temperature: float = 0.0) -> None:
    """Read turns until Ctrl-D or Ctrl-C and stream the answers.

    temperature: 0 by default, because a tuned variant is asked for facts and not for variety. The
    earlier turns are sent along; an empty line starts a new conversation.
    """
    client = OpenAI(base_url=base_url, api_key="no-key")
    turns: list[ChatCompletionMessageParam] = []
    console.print(f"[bold]{model}[/]  [dim]empty line: new conversation; Ctrl-D: end[/]")
    while True:
        try:
            question = console.input("[bold cyan]you>[/] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not question:
            turns = []
            console.print("[dim]new conversation[/]")
            continue
        turns.append({"role": "user", "content": question})
        try:
            answer = _stream_answer(client, model, turns, console, temperature)
        except (APIStatusError, APIConnectionError) as error:
            console.print(f"[red]{error.message}[/]")
            turns.pop()
            continue
        turns.append({"role": "assistant", "content": answer})


def _stream_answer(
    client: OpenAI,
    model: str,
    turns: list[ChatCompletionMessageParam],
    console: Console,
    temperature: float,
) -> str:
    stream = client.chat.completions.create(
        model=model,
        messages=turns,
        stream=True,
        temperature=temperature,
        max_tokens=MAX_TOKENS,
    )
    answer = ""
    for chunk in stream:
        piece = (chunk.choices[0].delta.content or "") if chunk.choices else ""
        answer += piece
        console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
    console.print()
    return answer
