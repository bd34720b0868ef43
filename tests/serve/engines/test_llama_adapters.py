import asyncio
import random
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from configs.errors import UserError
from data.conversation import Message
from serve.engine import EngineModel
from tests.serve.engines.asking import (
    MODEL,
    answers,
    ask,
    assistant,
    new_engine,
    request,
    running,
    user,
)
from tests.serve.tiny_llama import FEED_FORWARD_SIZE, HIDDEN_SIZE, NUM_LAYERS

RANK = 4
CONVERSATIONS: list[tuple[Message, ...]] = [
    (user("river"),),
    (user("river"), assistant("stone"), user("market")),
    (user("river"), assistant("stone"), user("at")),
    ({"role": "system", "content": "the river and the stone"}, user("market")),
]


def write_adapter(file: Path, seed: int) -> Path:
    source = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(RANK))
    for layer in range(NUM_LAYERS):
        name = f"blk.{layer}.ffn_up.weight"
        for part, shape in (("a", (RANK, HIDDEN_SIZE)), ("b", (FEED_FORWARD_SIZE, RANK))):
            weights = source.standard_normal(shape, dtype=np.float32) * np.float32(0.3)
            writer.add_tensor(f"{name}.lora_{part}", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: write_adapter(folder / f"{name}.gguf", n) for n, name in enumerate("ab")}


def test_an_answer_is_the_same_whoever_was_asked_before(
    tiny_gguf: Path, adapters: dict[str, Path]
) -> None:
    """The turns are the same for all, so what one holds of them must not serve another."""
    requests = [
        replace(request(*messages, max_tokens=30), model=model)
        for messages in CONVERSATIONS
        for model in (MODEL, "a", "b")
    ]
    alone = [answers(tiny_gguf, one, adapters=adapters)[0] for one in requests]
    assert len({one.choices[0].text for one in alone}) == len(requests)
    # The base under its own name is the model without any.
    assert alone[0] == answers(tiny_gguf, requests[0])[0]
    shuffled = [*range(len(requests))] * 3
    random.Random(0).shuffle(shuffled)
    given = answers(tiny_gguf, *(requests[n] for n in shuffled), adapters=adapters)
    assert given == [alone[n] for n in shuffled]


def test_slots_side_by_side_have_their_own_adapters(
    tiny_gguf: Path, adapters: dict[str, Path]
) -> None:
    """Not to the token, with shared batches; but the first tokens tell the models apart."""
    requests = [replace(request(user("river"), max_tokens=3), model=m) for m in (MODEL, "a", "b")]
    alone = [answers(tiny_gguf, one, adapters=adapters)[0] for one in requests]

    async def together() -> None:
        async with running(tiny_gguf, adapters=adapters, num_slots=3) as engine:
            for _ in range(3):
                given = await asyncio.gather(*(ask(engine, one) for one in requests))
                assert given == alone

    asyncio.run(together())


def test_all_models_are_named(tiny_gguf: Path, adapters: dict[str, Path]) -> None:
    engine = new_engine(tiny_gguf, adapters=adapters)
    assert engine.models == tuple(
        EngineModel(name=name, context_length=None) for name in (MODEL, "a", "b")
    )


def test_a_missing_adapter_is_told(tiny_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        answers(tiny_gguf, adapters={"a": tmp_path / "none.gguf"})
