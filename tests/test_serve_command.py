"""`tunery serve` and `tunery keys` as a user meets them."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serve.access.keys import KeyRing
from serve.errors import ApiError
from tests.serve.engines.test_llama_adapters import write_adapter
from tests.serve.merged_runs import make_run
from tests.serve.tiny_llama import build_tiny_gguf
from tests.test_command import ROOT, assert_told, tunery

START_TIMEOUT_S = 60
SERVE = {"num_threads": 1, "context_length": 512, "port": 0}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_gguf(tmp_path_factory.mktemp("gguf"))


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, str]]:
    """`tunery serve` until the block ends: what it says once it is ready, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tunery", "serve", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if '"messages"' in line:
                break
        address = re.search(r"answers at (http://\S+)/v1", said)
        assert address, said + process.communicate(timeout=START_TIMEOUT_S)[1]
        yield said, address[1]
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=START_TIMEOUT_S)
        assert process.returncode == 0, log
        assert "Traceback" not in log
    finally:
        process.kill()
        process.communicate()


def runs_of(folder: Path) -> tuple[str, str]:
    return "--runs", str(folder / "runs")


# tunery serve


def test_a_run_answers_and_says_how_to_call_it(gguf: Path, tmp_path: Path) -> None:
    files = {"variant": gguf, "base": gguf}
    make_run(tmp_path, "one", files=files, serve=SERVE | {"aliases": ["x"]})
    with serving("one", *runs_of(tmp_path)) as (said, url):
        assert f"one answers at {url}/v1 (Ctrl-C ends it)" in said
        call = re.search(r"-d '(.*)'", said)
        assert call
        body = json.loads(call[1]) | {"max_tokens": 3}
        assert body["model"] == "one"
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert [model["id"] for model in listed] == ["one", "x"]
        assert f"In the browser: {url}/\n" in said
        assert "<html" in httpx.get(f"{url}/").text
        [run] = httpx.get(f"{url}/workbench/api/runs").json()["runs"]
        assert (run["name"], run["is_served"]) == ("one", True)


def test_where_there_is_no_workbench_none_is_told(gguf: Path, tmp_path: Path) -> None:
    make_run(tmp_path, "one", files={"variant": gguf}, serve=SERVE | {"workbench": False})
    with serving("one", *runs_of(tmp_path)) as (said, url):
        assert "browser" not in said
        assert httpx.get(f"{url}/").status_code == 404


def test_the_base_answers_instead_under_its_own_name(gguf: Path, tmp_path: Path) -> None:
    make_run(tmp_path, "one", files={"base": gguf}, serve=SERVE | {"aliases": ["x"]})
    with serving("one", "--base", *runs_of(tmp_path)) as (said, url):
        assert f"tiny answers at {url}/v1" in said
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert [model["id"] for model in listed] == ["tiny"]


def test_several_runs_answer_beside_their_base(gguf: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        adapter = write_adapter(tmp_path / f"{name}.gguf", seed)
        files = {"base": gguf, "variant": gguf, "adapter": adapter}
        exports = {"adapter_exports": ["llamacpp"]}
        make_run(tmp_path, name, files=files, serve=SERVE, merge=exports)
    with serving("two", "one", *runs_of(tmp_path)) as (said, url):
        assert f"two, one answers at {url}/v1" in said
        texts = set()
        for name in ("one", "two", "tiny"):
            messages = [{"role": "user", "content": "the river"}]
            body = {"model": name, "messages": messages, "temperature": 0, "max_tokens": 8}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
            assert answer.status_code == 200, answer.text
            texts.add(answer.json()["choices"][0]["message"]["content"])
        assert len(texts) == 3


def test_host_and_port_on_the_line_come_before_the_configurations(
    gguf: Path, tmp_path: Path
) -> None:
    unreachable = SERVE | {"host": "192.0.2.1", "port": 1}
    make_run(tmp_path, "one", files={"variant": gguf}, serve=unreachable)
    assert_told(
        tunery("serve", "one", *runs_of(tmp_path)), "cannot listen there", "http://192.0.2.1:1"
    )
    line = ("--host", "127.0.0.1", "--port", "0")
    with serving("one", *line, *runs_of(tmp_path)) as (_, url):
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}/health").status_code == 200


def test_a_run_that_is_not_merged(tmp_path: Path) -> None:
    make_run(tmp_path, "one", merged=False)
    result = tunery("serve", "one", *runs_of(tmp_path))
    assert_told(result, "stage merge has not finished", "tunery merge")


def test_an_artefact_that_is_gone(tmp_path: Path) -> None:
    make_run(tmp_path, "one", serve=SERVE)
    result = tunery("serve", "one", *runs_of(tmp_path))
    # The server is there before its model is, so its log comes first.
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "error the model file does not exist\n  where: " in result.stderr
    assert "one.q8_0.gguf" in result.stderr


def test_a_base_that_was_not_made(gguf: Path, tmp_path: Path) -> None:
    make_run(tmp_path, "one", files={"variant": gguf}, serve=SERVE)
    result = tunery("serve", "one", "--base", *runs_of(tmp_path))
    assert_told(result, "this run made no artefact of the base", "{kind: base}")


def test_a_route_to_a_base_that_was_not_made(gguf: Path, tmp_path: Path) -> None:
    serve = SERVE | {"routes": {"untuned": {"to": "base"}}}
    make_run(tmp_path, "one", files={"variant": gguf}, serve=serve)
    result = tunery("serve", "one", *runs_of(tmp_path))
    assert_told(result, "a route leads to the base, of which this run made no artefact")


def test_several_runs_without_adapters(gguf: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path, name, files={"variant": gguf, "base": gguf}, serve=SERVE)
    result = tunery("serve", "one", "two", *runs_of(tmp_path))
    remedy = "add llamacpp to merge.adapter_exports and merge again"
    assert_told(result, "one has no adapter that llamacpp loads beside the base", remedy)


def test_several_runs_of_different_bases(gguf: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path, name, weights=name, files={"base": gguf})
    result = tunery("serve", "one", "two", *runs_of(tmp_path))
    assert_told(result, "two and one have different bases", "a server each")


def test_the_second_run_that_is_none(gguf: Path, tmp_path: Path) -> None:
    make_run(tmp_path, "one", files={"variant": gguf, "base": gguf})
    result = tunery("serve", "one", "tow", *runs_of(tmp_path))
    assert_told(result, "not a run directory", str(tmp_path / "runs" / "tow"))


def test_a_file_of_keys_that_is_not_there(gguf: Path, tmp_path: Path) -> None:
    serve = SERVE | {"api_keys_path": "keys.json"}
    make_run(tmp_path, "one", files={"variant": gguf}, serve=serve)
    result = tunery("serve", "one", *runs_of(tmp_path))
    assert_told(result, "the file of API keys cannot be read", "keys.json", "tunery keys add")


def test_nothing_to_serve_is_a_matter_of_usage() -> None:
    result = tunery("serve")
    assert result.returncode == 2
    assert "CONFIG|RUN" in result.stderr


# tunery keys


def test_a_key_is_printed_once_and_works_until_it_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    added = tunery("keys", "add", str(file), "web-shop", "--per-minute", "30", "--days", "2")
    assert added.returncode == 0, added.stderr
    key = added.stdout.strip()
    assert re.fullmatch(r"tunery_[A-Za-z0-9_-]{43}", key)
    assert key not in file.read_text()
    assert KeyRing(file).check(f"Bearer {key}").name == "web-shop"

    listed = tunery("keys", "list", str(file)).stdout
    assert re.search(r"web-shop .* 30 +\d{4}-\d\d-\d\d", listed)
    assert key not in listed

    removed = tunery("keys", "remove", str(file), "web-shop")
    assert (removed.returncode, removed.stdout) == (0, "")
    with pytest.raises(ApiError) as error:
        KeyRing(file).check(f"Bearer {key}")
    assert error.value.status == 401
    assert "web-shop" not in tunery("keys", "list", str(file)).stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("add", "shop"), ("there is a key of that name already: shop", "remove that key first")),
        (("add", "a shop"), ("'a shop' cannot be the name of a key", "letters, digits")),
        (("add", "b", "--per-minute", "0"), ("0 requests a minute let nobody in",)),
        (("add", "b", "--days", "-1"), ("a key cannot end after -1 days",)),
        (("remove", "shpo"), ("there is no key of that name: shpo", "did you mean shop?")),
        (("remove", "xyzzy"), ("there is no key of that name: xyzzy", "`tunery keys list`")),
    ],
)
def test_what_cannot_be_done_to_a_key(
    arguments: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    assert tunery("keys", "add", str(file), "shop").returncode == 0
    before = file.read_bytes()
    action, *rest = arguments
    assert_told(tunery("keys", action, str(file), *rest), *parts)
    assert file.read_bytes() == before


@pytest.mark.parametrize("action", [("list",), ("remove", "shop")])
def test_a_file_of_keys_that_was_never_made(action: tuple[str, ...], tmp_path: Path) -> None:
    name, *rest = action
    result = tunery("keys", name, str(tmp_path / "no" / "keys.json"), *rest)
    assert_told(result, "the file of API keys cannot be read", "tunery keys add")
    assert not (tmp_path / "no").exists()


def test_keys_alone_shows_what_there_is_to_do() -> None:
    result = tunery("keys")
    for name in ("add", "remove", "list"):
        assert f" {name} " in result.stdout + result.stderr
