"""The code to take home: each program is run, and says what the interface says."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from serve.workbench.calls import render_calls
from tests.loopback import run_app
from tests.serve.conftest import MODEL
from tests.serve.workbench.run_call import run_call

SCHEMA = {
    "type": "object",
    "properties": {"is_open": {"type": "boolean"}},
    "required": ["is_open"],
    "additionalProperties": False,
}
ODD = (
    'He said "it\'s" $HOME `id` \\n \'\'\' """ \\ \t {x} '
    "@BODY@ @URL@ <b> \U0001f600 日本\nnew line \u2028."
)
BODIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "sampled": {"temperature": 0.5, "seed": 7, "top_p": 0.9, "stop": ["zz"], "n": 1},
    "mistral's spelling": {"random_seed": 3, "safe_prompt": False},
    "json": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": SCHEMA, "strict": True},
        }
    },
    "odd": {"messages": [{"role": "system", "content": ODD}, {"role": "user", "content": ODD}]},
    "system": {
        "messages": [
            {"role": "system", "content": "Be short. " * 12},
            {"role": "user", "content": "the river"},
        ]
    },
}


def body_of(**fields: object) -> dict[str, Any]:
    messages = [{"role": "user", "content": "the river"}]
    return {"model": MODEL, "messages": messages, "max_tokens": 24, "temperature": 0} | fields


def text_in(kind: str, output: str, *, stream: bool) -> str:
    """The answer's text in what a program wrote."""
    if kind != "curl":
        return output
    if not stream:
        return str(json.loads(output)["choices"][0]["message"]["content"])
    events = [line.removeprefix("data: ") for line in output.splitlines() if line]
    assert events[-1] == "[DONE]"
    deltas = [choice["delta"] for event in events[:-1] for choice in json.loads(event)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["curl", "openai", "requests", "javascript"])
def test_each_program_says_what_the_interface_says(
    kind: str, stream: bool, server_url: str, http: httpx.Client, tmp_path: Path
) -> None:
    for name, fields in BODIES.items():
        body = body_of(**fields) | ({"stream": True} if stream else {})
        whole = http.post("/v1/chat/completions", json=body | {"stream": False}).json()
        expected = whole["choices"][0]["message"]["content"]
        assert expected, name
        codes = {call.id: call.code for call in render_calls(body, url=f"{server_url}/v1")}
        output = run_call(kind, codes[kind], tmp_path)
        assert text_in(kind, output, stream=stream) == expected, name


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["curl", "openai", "requests", "javascript"])
def test_a_refusal_is_told_and_is_no_success(
    kind: str, stream: bool, server_url: str, tmp_path: Path
) -> None:
    body = body_of(model="nobody", stream=stream)
    codes = {call.id: call.code for call in render_calls(body, url=f"{server_url}/v1")}
    with pytest.raises(AssertionError, match=r"Model not found: nobody|404"):
        run_call(kind, codes[kind], tmp_path)


@pytest.mark.parametrize("stream", [False, True])
def test_python_is_laid_out_as_the_formatter_does(stream: bool, tmp_path: Path) -> None:
    bodies = [body_of(**fields) | {"stream": stream} for fields in BODIES.values()]
    # Lines up to, at and past the longest.
    bodies += [body_of(messages=[{"role": "user", "content": "a" * n}]) for n in range(38, 66)]
    bodies.append(
        body_of(tools=[{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}])
    )
    for number, body in enumerate(bodies):
        for call in render_calls(body, url="http://127.0.0.1:8000/v1"):
            if call.language == "python":
                file = tmp_path / f"{call.id}{number}.py"
                file.write_text(call.code, encoding="utf-8")
    options = ["--isolated", "--line-length", "100", str(tmp_path)]
    for command in (["format", "--diff"], ["check", "--select", "E4,E7,E9,F,I"]):
        ended = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options], capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout


def _sent_by_openai(code: str) -> dict[str, Any]:
    """The body that the code's arguments make, as the client puts it together."""
    call = code[code.index("completions.create(") + len("completions.create") :]
    arguments = call[: call.index("\n)\n") + 2]
    given: dict[str, Any] = eval(f"dict{arguments}", {})
    further: dict[str, Any] = given.pop("extra_body", {})
    given.pop("timeout", None)  # the client's own, which is not sent
    return given | further


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["model", "messages", "stop", "user", "random_seed", "timeout", "x-y", "class"]
        ),
        json_values,
    )
)
def test_any_json_is_the_same_in_python(body: dict[str, Any]) -> None:
    codes = {call.id: call.code for call in render_calls(body, url="http://h/v1")}
    assert _sent_by_openai(codes["openai"]) == body
    rest = codes["requests"].partition("    json=")[2].partition(",\n    timeout=600")[0]
    assert eval(rest, {}) == body


def test_no_code_holds_a_key_and_each_reads_it_from_the_environment() -> None:
    for call in render_calls(body_of(), url="https://models.example.org/v1/"):
        assert "TUNERY_KEY" in call.code
        assert "https://models.example.org/v1" in call.code
        assert "v1//chat" not in call.code


def test_a_body_longer_than_an_argument_may_be_is_sent_whole(
    server_url: str, tmp_path: Path
) -> None:
    said = "river " * 40_000
    body = body_of(messages=[{"role": "user", "content": said}])
    [curl] = [call.code for call in render_calls(body, url=f"{server_url}/v1") if call.id == "curl"]
    # Too long for the context: so it has come as a whole.
    with pytest.raises(AssertionError, match="400"):
        run_call("curl", curl, tmp_path)


def test_a_stream_is_not_held_back() -> None:
    codes = {call.id: call.code for call in render_calls(body_of(stream=True), url="http://h/v1")}
    assert "--no-buffer" in codes["curl"]
    assert "stream=True" in codes["requests"]


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "find", "arguments": ""}}
CALL_REST = {"index": 0, "function": {"arguments": '{"x": "é"}'}}
SAID: list[dict[str, Any]] = [
    {"content": "Löok: "},
    {"tool_calls": [CALL]},
    {"tool_calls": [CALL_REST]},
]


def _stream_of(*events: dict[str, Any]) -> Starlette:
    """A host that streams `events` in pieces of 5 bytes, which end anywhere."""
    told = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    content = f": keep-alive\n\n{told}data: [DONE]\n\n".encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 5):
            yield content[start : start + 5]
            await asyncio.sleep(0)

    async def complete(request: Request) -> Response:
        return StreamingResponse(pieces(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])


def _chunk(delta: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    about = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    return about | {"choices": [choice]}


@pytest.mark.parametrize("kind", ["openai", "requests", "javascript"])
def test_pieces_that_end_anywhere_and_calls_of_tools_are_read(kind: str, tmp_path: Path) -> None:
    with run_app(_stream_of(*map(_chunk, SAID))) as url:
        codes = {call.id: call.code for call in render_calls(body_of(stream=True), url=f"{url}/v1")}
        said = run_call(kind, codes[kind], tmp_path)
    assert re.sub(r"\s", "", said) == 'Löok:find{"x":"é"}'


@pytest.mark.parametrize("kind", ["openai", "requests", "javascript"])
def test_a_stream_that_breaks_off_tells_why(kind: str, tmp_path: Path) -> None:
    events = [_chunk(SAID[0]), {"error": {"message": "out of memory", "type": "unknown_error"}}]
    with run_app(_stream_of(*events)) as url:
        codes = {call.id: call.code for call in render_calls(body_of(stream=True), url=f"{url}/v1")}
        with pytest.raises(AssertionError, match="out of memory"):
            run_call(kind, codes[kind], tmp_path)
