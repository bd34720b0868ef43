"""A request as code to take home, for each kind of client: what runs is what the page has sent.

The key is always read from the environment variable `TUNERY_KEY`; no code holds one.
"""

import inspect
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from openai.resources.chat.completions import Completions

LINE_LENGTH = 100
INDENT = 4

CURL = """\
curl --fail-with-body@OPTIONS@ @URL@/chat/completions \\
  -H "Authorization: Bearer $TUNERY_KEY" \\
  -H "Content-Type: application/json" \\
  --data-binary @- <<'JSON'
@BODY@
JSON
"""
# The body comes from a document in the shell: Linux takes arguments of 128 KiB at the most, and one
# image is longer.
OPENAI = """\
import os

from openai import OpenAI

client = OpenAI(base_url="@URL@", api_key=os.environ["TUNERY_KEY"])
answer = client.chat.completions.create(
@BODY@)
for choice in answer.choices:
    print(choice.message.content or "", end="")
    for call in choice.message.tool_calls or []:
        print(call.function.name, call.function.arguments)
"""
OPENAI_STREAM = """\
import os

from openai import OpenAI

client = OpenAI(base_url="@URL@", api_key=os.environ["TUNERY_KEY"])
stream = client.chat.completions.create(
@BODY@)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
        for call in choice.delta.tool_calls or []:
            print(call.function.name or "", call.function.arguments or "", end="")
"""
REQUESTS = """\
import os

import requests

answer = requests.post(
    "@URL@/chat/completions",
    headers={"Authorization": f"Bearer {os.environ['TUNERY_KEY']}"},
    json=@BODY@,
    timeout=600,
)
answer.raise_for_status()
for choice in answer.json()["choices"]:
    print(choice["message"]["content"] or "", end="")
    for call in choice["message"].get("tool_calls") or []:
        print(call["function"]["name"], call["function"]["arguments"])
"""
REQUESTS_STREAM = """\
import json
import os

import requests

with requests.post(
    "@URL@/chat/completions",
    headers={"Authorization": f"Bearer {os.environ['TUNERY_KEY']}"},
    json=@BODY@,
    stream=True,
    timeout=600,
) as answer:
    answer.raise_for_status()
    for line in answer.iter_lines():
        data = line.removeprefix(b"data: ")
        if data == line or data == b"[DONE]":
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            raise SystemExit(chunk["error"]["message"])
        for choice in chunk["choices"]:
            print(choice["delta"].get("content") or "", end="", flush=True)
            for call in choice["delta"].get("tool_calls") or []:
                print(call["function"].get("name") or "", call["function"]["arguments"], end="")
"""
JAVASCRIPT = """\
const answer = await fetch("@URL@/chat/completions", {
  method: "POST",
  headers: {
    Authorization: `Bearer ${process.env.TUNERY_KEY}`,
    "Content-Type": "application/json",
  },
  body: JSON.stringify(@BODY@),
});
if (!answer.ok) throw new Error((await answer.json()).error.message);
for (const { message } of (await answer.json()).choices) {
  process.stdout.write(message.content ?? "");
  for (const call of message.tool_calls ?? []) {
    console.log(call.function.name, call.function.arguments);
  }
}
"""
JAVASCRIPT_STREAM = """\
const answer = await fetch("@URL@/chat/completions", {
  method: "POST",
  headers: {
    Authorization: `Bearer ${process.env.TUNERY_KEY}`,
    "Content-Type": "application/json",
  },
  body: JSON.stringify(@BODY@),
});
if (!answer.ok) throw new Error((await answer.json()).error.message);
let rest = "";
for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + text).split("\\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const chunk = JSON.parse(line.slice(6));
    if (chunk.error) throw new Error(chunk.error.message);
    for (const { delta } of chunk.choices) {
      process.stdout.write(delta.content ?? "");
      for (const call of delta.tool_calls ?? []) {
        process.stdout.write(`${call.function.name ?? ""} ${call.function.arguments ?? ""}`);
      }
    }
  }
}
"""


class Call(NamedTuple):
    """The code of one kind of client. id: names the kind; title: for people; language: of code."""

    id: str
    title: str
    language: str
    code: str


def render_calls(body: Mapping[str, Any], *, url: str) -> list[Call]:
    """The same request for each kind of client.

    body: of a chat completion, as JSON would hold it; url: in front of `/chat/completions`, without
    quotes and white space. Each program writes the answer's text, in pieces as they come where
    `stream` is true; cURL writes what the server sends.
    """
    is_stream = body.get("stream") is True
    curl = CURL.replace("@OPTIONS@", " --no-buffer" if is_stream else "")
    return [
        Call("curl", "cURL", "bash", _filled(curl, url, _json(body))),
        Call(
            "openai",
            "Python, openai",
            "python",
            _filled(OPENAI_STREAM if is_stream else OPENAI, url, _arguments(body)),
        ),
        Call(
            "requests",
            "Python, requests",
            "python",
            _filled(
                REQUESTS_STREAM if is_stream else REQUESTS,
                url,
                _python(body, column=len("    json="), indent=INDENT),
            ),
        ),
        Call(
            "javascript",
            "JavaScript",
            "javascript",
            _filled(
                JAVASCRIPT_STREAM if is_stream else JAVASCRIPT,
                url,
                _json(body).replace("\n", "\n  "),
            ),
        ),
    ]


def _filled(template: str, url: str, body: str) -> str:
    """The body goes in last: what stands in it is nobody's placeholder."""
    return template.replace("@URL@", url.rstrip("/")).replace("@BODY@", body)


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, indent=2)


@cache
def _openai_arguments() -> frozenset[str]:
    """What the client takes by name; it sends other fields as they are in `extra_body`."""
    names = inspect.signature(Completions.create).parameters.keys()
    return frozenset(names - {"self", "extra_headers", "extra_query", "extra_body", "timeout"})


def _arguments(body: Mapping[str, Any]) -> str:
    """The body as arguments of the client's method, one a line."""
    named = {name: value for name, value in body.items() if name in _openai_arguments()}
    further = {name: value for name, value in body.items() if name not in named}
    given = named | ({"extra_body": further} if further else {})
    lines = (
        f"{' ' * INDENT}{name}={_python(value, column=INDENT + len(name) + 1, indent=INDENT)},\n"
        for name, value in given.items()
    )
    return "".join(lines)


def _python(value: Any, *, column: int, indent: int) -> str:  # noqa: ANN401 (any JSON)
    """A JSON value in Python, as a formatter lays it out.

    column: where it begins; indent: of the line that it begins in.
    """
    inline = _inline(value)
    if not (isinstance(value, dict | list) and value) or column + len(inline) < LINE_LENGTH:
        return inline
    inner, lines = indent + INDENT, []
    keys = [f"{_quoted(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    parts = value.values() if isinstance(value, dict) else value
    for key, part in zip(keys, parts, strict=True):
        lines.append(" " * inner + key + _python(part, column=inner + len(key), indent=inner))
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([opening, *(f"{line}," for line in lines), " " * indent + closing])


def _inline(value: Any) -> str:  # noqa: ANN401 (any JSON)
    match value:
        case dict():
            items = (f"{_quoted(key)}: {_inline(part)}" for key, part in value.items())
            return "{" + ", ".join(items) + "}"
        case list():
            return "[" + ", ".join(map(_inline, value)) + "]"
        case str():
            return _quoted(value)
        case _:
            return repr(value)


def _quoted(text: str) -> str:
    """JSON's text is Python's too; in single quotes where that takes fewer escapes."""
    quoted = json.dumps(text, ensure_ascii=False)
    if text.count('"') > text.count("'"):
        return "'" + quoted[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
    return quoted
