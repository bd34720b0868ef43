"""What users of a server rely on under load and fault, each over real HTTP."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serve.access.commands import add_key, remove_key
from serve.process import ServerProcess, start_interface
from serve.settings import ServerSettings
from tests.serve.conftest import MODEL, START_TIMEOUT_S, command_of, one_model

CHAT = "/v1/chat/completions"


def body(**fields: object) -> dict[str, Any]:
    question = [{"role": "user", "content": "the river"}]
    return {"model": MODEL, "messages": question, "max_tokens": 5, "temperature": 0} | fields


@contextmanager
def serving(settings: ServerSettings, folder: Path) -> Iterator[tuple[httpx.Client, ServerProcess]]:
    """A server of its own, with a client of it; its log is `folder`/server.log."""
    log = folder / "server.log"
    with (
        start_interface(settings, timeout_s=START_TIMEOUT_S, log=log) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client, server


@contextmanager
def endless_answer(client: httpx.Client) -> Iterator[Iterator[str]]:
    """The lines of an answer that has begun and goes on until the block ends."""
    with client.stream("POST", CHAT, json=body(stream=True, max_tokens=None)) as response:
        assert response.status_code == 200, response.read()
        lines = response.iter_lines()
        next(lines)
        yield lines


def wait_until(holds: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.split()[-1]) for line in lines if all(part in line for part in wanted))


def log_lines(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "server.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def engine_process(server: ServerProcess) -> psutil.Process:
    [engine] = psutil.Process(server.pid).children()
    return engine


def test_who_finds_the_line_full_hears_when_to_return(tiny_gguf: Path, tmp_path: Path) -> None:
    settings = one_model(tiny_gguf, max_waiting=2)
    with (
        serving(settings, tmp_path) as (client, _),
        ThreadPoolExecutor(2) as pool,
        ExitStack() as running,
    ):
        running.enter_context(endless_answer(client))
        waiting = [pool.submit(client.post, CHAT, json=body()) for _ in range(2)]
        wait_until(lambda: metric(client, "vllm:num_requests_waiting") == 2)
        assert metric(client, "vllm:num_requests_running") == 1
        for stream in (False, True):
            asked = time.monotonic()
            refused = client.post(CHAT, json=body(stream=stream))
            assert time.monotonic() - asked < 0.5
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert "2 are waiting" in refused.json()["error"]["message"]
        running.close()
        assert [answer.result(10).status_code for answer in waiting] == [200, 200]
        assert client.post(CHAT, json=body()).status_code == 200
        assert metric(client, "tunery:refusals_total", status="429") == 2


def test_who_waits_in_a_stream_is_kept_company(tiny_gguf: Path, tmp_path: Path) -> None:
    settings = one_model(tiny_gguf, keep_alive_s=0.1)
    with serving(settings, tmp_path) as (client, _), ExitStack() as running:
        running.enter_context(endless_answer(client))
        with client.stream("POST", CHAT, json=body(stream=True)) as response:
            lines = response.iter_lines()
            assert [next(lines) for _ in range(6)] == [": keep-alive", ""] * 3
            running.close()
            said = [line for line in lines if line.startswith("data: ")]
        assert said[-1] == "data: [DONE]"
        assert json.loads(said[0].removeprefix("data: "))["choices"][0]["delta"]["role"]


def test_an_engine_that_dies_ends_its_requests_and_comes_back(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    settings = one_model(tiny_gguf)
    with (
        serving(settings, tmp_path) as (client, server),
        ThreadPoolExecutor(1) as pool,
        endless_answer(client) as lines,
    ):
        waiting = pool.submit(client.post, CHAT, json=body())
        wait_until(lambda: metric(client, "vllm:num_requests_waiting") == 1)
        first = engine_process(server)
        first.kill()
        killed = time.monotonic()
        last = [line for line in lines if line][-1]
        assert time.monotonic() - killed < 2
        fault = json.loads(last.removeprefix("data: "))
        assert fault["status_message"] == fault["error"]["type"] == "service_unavailable"
        refused = waiting.result(10)
        if refused.status_code != 200:  # it may have been let in after the restart
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        assert client.post(CHAT, json=body()).status_code == 200
        assert engine_process(server).pid != first.pid
        assert metric(client, "tunery:engine_restarts_total") == 1


def test_a_silent_engine_is_given_up_and_started_again(tiny_gguf: Path, tmp_path: Path) -> None:
    settings = one_model(tiny_gguf, silence_s=1.0)
    with serving(settings, tmp_path) as (client, server):
        assert client.post(CHAT, json=body()).status_code == 200
        engine_process(server).send_signal(signal.SIGSTOP)
        asked = time.monotonic()
        refused = client.post(CHAT, json=body())
        assert refused.status_code == 503
        assert 0.9 < time.monotonic() - asked < 3
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        assert client.post(CHAT, json=body()).status_code == 200


def test_a_server_that_loads_is_alive_and_not_ready(tiny_gguf: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = command_of(one_model(tiny_gguf, port=port), tmp_path)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until(lambda: _is_alive(client))
            ready = client.get("/health/ready")
            asked = client.post(CHAT, json=body())
            assert ready.status_code == 503
            assert ready.json()["status"] == "loading"
            assert asked.status_code == 503
            assert "Retry-After" in asked.headers
            wait_until(lambda: client.get("/health/ready").status_code == 200)
            assert client.get("/health").json() == {"status": "ok", "models": [MODEL]}
            assert client.post(CHAT, json=body()).status_code == 200
    finally:
        process.terminate()
        process.wait(10)


def _is_alive(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_a_body_that_is_too_large_is_a_413(tiny_gguf: Path, tmp_path: Path) -> None:
    with serving(one_model(tiny_gguf, max_body_mib=1), tmp_path) as (client, _):
        large = body(messages=[{"role": "user", "content": "a" * 2**21}])
        declared = client.post(CHAT, json=large)

        def pieces() -> Iterator[bytes]:
            content = json.dumps(large).encode()
            for start in range(0, len(content), 65536):
                yield content[start : start + 65536]

        headers = {"Content-Type": "application/json"}
        streamed = client.post(CHAT, content=pieces(), headers=headers)
        for answer in (declared, streamed):
            assert answer.status_code == 413
            assert "1 MiB" in answer.json()["error"]["message"]
        assert client.post(CHAT, json=body()).status_code == 200


def test_a_body_that_is_too_large_is_not_waited_for(tiny_gguf: Path, tmp_path: Path) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    with serving(one_model(tiny_gguf, max_body_mib=1), tmp_path) as (_, server):
        host, port = server.url.removeprefix("http://").split(":")

        def answer_to(sent: bytes) -> bytes:
            """What comes back although the body has not ended."""
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(head.encode() + sent)
                return connection.recv(100)

        declared = f"Content-Length: {10 * 2**30}\r\n\r\n".encode()
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        chunked = b"Transfer-Encoding: chunked\r\n\r\n" + piece * 17
        for sent in (declared, chunked):
            assert answer_to(sent).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_no_json_by_name_is_a_415(http: httpx.Client, kind: str) -> None:
    content = json.dumps(body()).encode()
    answer = http.post(CHAT, content=content, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]


def test_keys_are_asked_for_counted_and_can_be_taken_back(tiny_gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "clinic")
    slow = add_key(file, "batch", requests_per_minute=1)
    assert key not in file.read_text()
    with serving(one_model(tiny_gguf, api_keys_path=str(file)), tmp_path) as (client, _):

        def ask(headers: dict[str, str], path: str = CHAT) -> httpx.Response:
            return client.post(path, json=body(), headers=headers)

        own, wrong = {"Authorization": f"Bearer {key}"}, {"Authorization": "Bearer tunery_no"}
        for headers in ({}, wrong, {"Authorization": "Basic abc"}, {"Authorization": key}):
            refused = ask(headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "unauthenticated"
            assert client.get("/v1/models", headers=headers).status_code == 401
        assert ask(own).status_code == 200
        assert client.get("/v1/models", headers=own).status_code == 200
        assert client.get("/health/ready").status_code == 200
        limited = {"Authorization": f"Bearer {slow}"}
        answers = [ask(limited) for _ in range(3)]
        assert answers[0].status_code == 200
        assert answers[-1].status_code == 429
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        assert ask(own).status_code == 200
        remove_key(file, "clinic")
        wait_until(lambda: ask(own).status_code == 401)
    said = (tmp_path / "server.log").read_text()
    assert key not in said
    assert slow not in said
    assert "clinic" in said


def test_every_request_leaves_one_line_with_its_id(tiny_gguf: Path, tmp_path: Path) -> None:
    with serving(one_model(tiny_gguf), tmp_path) as (client, _):
        given = client.post(CHAT, json=body(), headers={"X-Request-ID": "abc-1"})
        made = client.post(CHAT, json=body(stream=True))
        wrong = client.post(CHAT, json=body(temperature=9))
        assert given.headers["X-Request-ID"] == "abc-1"
        ids = [answer.headers["X-Request-ID"] for answer in (given, made, wrong)]
    lines = {line["request_id"]: line for line in log_lines(tmp_path) if line.get("request_id")}
    first, second, third = (lines[id] for id in ids)
    assert (first["status"], first["model"], first["target"]) == (200, MODEL, MODEL)
    assert (first["path"], first["stream"], second["stream"]) == (CHAT, False, True)
    assert first["prompt_tokens"] > 0
    assert first["completion_tokens"] == second["completion_tokens"] == 5
    assert 0 < second["first_token_ms"] <= second["total_ms"]
    assert third["status"] == 400
    assert "river" not in (tmp_path / "server.log").read_text()


def test_metrics_have_vllms_names(tiny_gguf: Path, tmp_path: Path) -> None:
    with serving(one_model(tiny_gguf), tmp_path) as (client, _):
        for stream in (False, True):
            client.post(CHAT, json=body(stream=stream))
        with endless_answer(client):
            pass
        success = "vllm:request_success_total"
        wait_until(lambda: metric(client, success, finished_reason="abort") == 1)
        assert metric(client, success, finished_reason="length", model_name=MODEL) == 2
        assert metric(client, "vllm:generation_tokens_total") >= 10
        for histogram in (
            "vllm:time_to_first_token_seconds",
            "vllm:inter_token_latency_seconds",
            "vllm:e2e_request_latency_seconds",
        ):
            assert metric(client, f"{histogram}_count") >= 2, histogram


def hosted(url: str) -> dict[str, Any]:
    return {"base_url": f"{url}/v1", "model": MODEL}


def test_an_overloaded_variant_falls_back_to_the_hosted_model(
    tiny_gguf: Path, server_url: str, tmp_path: Path
) -> None:
    settings = one_model(
        tiny_gguf, max_waiting=0, hosted=hosted(server_url), routes={MODEL: {"fallback": "hosted"}}
    )
    with serving(settings, tmp_path) as (client, _):
        own = client.post(CHAT, json=body())
        assert own.headers["X-Tunery-Target"] == MODEL
        with endless_answer(client):
            other = client.post(CHAT, json=body())
            assert other.headers["X-Tunery-Target"] == f"hosted/{MODEL}"
            assert other.json()["choices"] == own.json()["choices"]
        assert metric(client, "tunery:fallbacks_total") == 1


def test_a_split_is_sticky_and_has_its_share(
    tiny_gguf: Path, server_url: str, tmp_path: Path
) -> None:
    settings = one_model(
        tiny_gguf, hosted=hosted(server_url), routes={"both": {"split": {"hosted": 40}}}
    )
    with serving(settings, tmp_path) as (client, _):

        def target(user: str) -> str:
            answer = client.post(CHAT, json=body(model="both", user=user, max_tokens=1))
            return answer.headers["X-Tunery-Target"]

        targets = [target(f"user {number}") for number in range(100)]
        assert 25 <= targets.count(f"hosted/{MODEL}") <= 55
        assert targets[:20] == [target(f"user {number}") for number in range(20)]


def test_a_shadow_is_recorded_and_the_client_gets_the_hosted_answer(
    tiny_gguf: Path, server_url: str, tmp_path: Path
) -> None:
    settings = one_model(
        tiny_gguf,
        hosted=hosted(server_url),
        routes={"mistral-small-2503": {"to": "hosted", "shadow": "variant"}},
    ).model_copy(update={"folder": tmp_path / "serve"})
    with serving(settings, tmp_path) as (client, _):
        answer = client.post(CHAT, json=body(model="mistral-small-2503"))
        assert answer.headers["X-Tunery-Target"] == f"hosted/{MODEL}"
        assert answer.json()["model"] == "mistral-small-2503"
        wait_until(lambda: metric(client, "tunery:shadows_total", outcome="answered") == 1)
    [file] = (tmp_path / "serve" / "recordings").glob("*.jsonl")
    [record] = [json.loads(line) for line in file.read_text().splitlines()]
    assert record["equal"] is True
    assert "river" not in file.read_text()
