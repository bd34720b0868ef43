"""Several variants on one base that is loaded once: each name answers as it does alone."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from configs.serve_schema import ServeConfig
from serve.process import ServerProcess, start_interface
from serve.settings import ServedVariant, ServerSettings
from tests.serve.conftest import START_TIMEOUT_S
from tests.serve.engines.asking import answers, request, user
from tests.tiny_gguf import write_tiny_gguf
from tests.train.merging.adapters import write_adapter
from train.artefacts.lora_gguf import make_lora_gguf
from train.merging.adapters import WeightedAdapter

BASE = "owner/base"
NAMES = ("one", "two", BASE)
WEIGHT = 3.0
"""Adapters that are applied this strongly change what a random model says, and not only a little.
"""
QUESTIONS = (
    "Which colour is the sky?",
    "Name the licence and its category.",
    "Which number is it?",
)
# Drawn, because the greedy answers of a random model repeat one token each.
SAMPLING: dict[str, Any] = {"temperature": 1.0, "seed": 5, "max_tokens": 12}
NUM_ROUNDS = 4


@pytest.fixture(scope="module")
def base_file(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tiny_checkpoint, tmp_path_factory.mktemp("base") / "base.gguf")


@pytest.fixture(scope="module")
def adapters(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two as training and merging leave them."""
    folder = tmp_path_factory.mktemp("adapters")
    files = {}
    for seed, name in enumerate(("one", "two"), start=1):
        adapter = write_adapter(tiny_checkpoint, folder / name, seed=seed)
        files[name] = folder / f"{name}.lora.gguf"
        make_lora_gguf([WeightedAdapter(adapter, WEIGHT)], tiny_checkpoint, files[name], name=name)
    return files


@pytest.fixture(scope="module")
def alone(base_file: Path, adapters: dict[str, Path]) -> dict[tuple[str, str], str]:
    """What each answers to each question where it is all that an engine has loaded."""
    told = {}
    for name in NAMES:
        loaded = {name: adapters[name]} if name in adapters else {}
        model = {"model": name} if loaded else {}
        asked = [request(user(text), **SAMPLING, **model) for text in QUESTIONS]
        given = answers(base_file, *asked, adapters=loaded)
        for question, answer in zip(QUESTIONS, given, strict=True):
            told[name, question] = answer.choices[0].text
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(base_file: Path, adapters: dict[str, Path], folder: Path) -> Iterator[ServerProcess]:
    settings = ServerSettings(
        variants=[ServedVariant(name=name, adapter=file) for name, file in adapters.items()],
        base_name=BASE,
        base=base_file,
        serve=ServeConfig(port=0, num_threads=1, context_length=512, num_slots=2),
        folder=folder,
    )
    log = folder / "server.log"
    with start_interface(settings, timeout_s=START_TIMEOUT_S, log=log) as server:
        yield server
    assert "Traceback" not in log.read_text()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def ask(client: httpx.Client, name: str, question: str) -> str:
    body = {"model": name, "messages": [user(question)], **SAMPLING}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == name
    text = response.json()["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def shuffled(alone: dict[tuple[str, str], str], seed: int) -> list[tuple[str, str]]:
    asked = [*alone] * NUM_ROUNDS
    random.Random(seed).shuffle(asked)
    return asked


def test_the_three_can_be_told_apart(alone: dict[tuple[str, str], str]) -> None:
    for question in QUESTIONS:
        assert len({alone[name, question] for name in NAMES}) == len(NAMES)


def test_each_answers_as_it_does_alone_in_any_order(
    client: httpx.Client, alone: dict[tuple[str, str], str]
) -> None:
    for name, question in shuffled(alone, seed=0):
        assert ask(client, name, question) == alone[name, question]


def test_each_answers_as_it_does_alone_beside_the_others(
    client: httpx.Client, alone: dict[tuple[str, str], str]
) -> None:
    asked = shuffled(alone, seed=1)
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(lambda one: ask(client, *one), asked))
    assert told == [alone[one] for one in asked]


def test_one_process_holds_all_of_them(server: ServerProcess, folder: Path) -> None:
    children = psutil.Process(server.pid).children(recursive=True)
    assert len(children) == 1
    assert [file.name for file in folder.glob("engine-*.log")] == ["engine-owner-base.log"]


def test_the_models_list_tells_what_was_tuned_from_what(client: httpx.Client) -> None:
    listed = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert tuple(listed) == NAMES
    kinds = {name: model["model_type"] for name, model in listed.items()}
    assert kinds == {"one": "custom", "two": "custom", BASE: "base"}
