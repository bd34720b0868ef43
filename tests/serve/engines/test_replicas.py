"""Two real llama.cpp behind one engine: killed, replaced and asked meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from configs.errors import UserError
from serve.engine import Completion, EngineError, EngineUnavailable, TextDelta
from serve.engines.llamacpp import LlamaCppEngine
from serve.engines.replicas import ReplicatedEngine, Routing
from tests.serve.engines.asking import new_engine, request, text, user

LIMIT_S = 60.0
NUM_CLIENTS = 6


@asynccontextmanager
async def replicated(
    gguf: Path, *, routing: Routing = "prefix"
) -> AsyncIterator[tuple[ReplicatedEngine, list[LlamaCppEngine]]]:
    engines = [new_engine(gguf, context_length=2048) for _ in range(2)]
    both = ReplicatedEngine({"a": engines[0], "b": engines[1]}, routing=routing)
    try:
        await both.start()
        yield both, engines
    finally:
        await both.close()


def short(number: int) -> Completion:
    return request(user(f"the river and stone {number}"), max_tokens=8)


def llama_children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "serve.llama_process" in child.cmdline()
    ]


async def until_restarted(engines: list[LlamaCppEngine]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while sum(engine.num_restarts for engine in engines) < 1 or not all(
            engine.ready for engine in engines
        ):
            await asyncio.sleep(0.01)


def test_one_killed_under_load_costs_no_request_that_had_not_begun(tiny_gguf: Path) -> None:
    async def load() -> None:
        async with replicated(tiny_gguf, routing="least_loaded") as (both, engines):
            expected = [await text(both, short(number)) for number in range(NUM_CLIENTS)]
            whole: list[int] = []
            broken: list[Exception] = []
            stop = asyncio.Event()

            async def client(number: int) -> None:
                while not stop.is_set():
                    begun = False
                    said = ""
                    try:
                        async for event in both.complete(short(number)):
                            begun = True
                            if isinstance(event, TextDelta):
                                said += event.text
                    except EngineError as error:
                        assert begun, f"refused before its first word: {error}"
                        broken.append(error)
                    else:
                        assert said == expected[number]
                        whole.append(number)

            async def until_more(num: int) -> None:
                goal = len(whole) + num
                while len(whole) < goal:
                    await asyncio.sleep(0.01)

            clients = [asyncio.create_task(client(number)) for number in range(NUM_CLIENTS)]
            async with asyncio.timeout(LIMIT_S):
                await until_more(NUM_CLIENTS)
                llama_children()[0].kill()
                # The other one goes on alone, and then both do.
                await until_more(NUM_CLIENTS)
                await until_restarted(engines)
                await until_more(NUM_CLIENTS)
                stop.set()
                await asyncio.gather(*clients)
            assert len(broken) <= NUM_CLIENTS
            assert all(isinstance(error, EngineUnavailable) for error in broken)
            assert [await text(engine, short(0)) for engine in engines] == 2 * expected[:1]

    asyncio.run(load())


def test_an_answer_that_has_begun_ends_with_an_error_and_is_not_begun_again(
    tiny_gguf: Path,
) -> None:
    async def kill() -> None:
        async with replicated(tiny_gguf) as (both, _):
            events = both.complete(request(user("river")))
            assert isinstance(await anext(events), TextDelta)
            for child in llama_children():
                child.kill()
            with pytest.raises(EngineUnavailable):
                async for _event in events:
                    pass

    asyncio.run(kill())


def test_a_replica_is_replaced_under_load_without_a_failed_request(tiny_gguf: Path) -> None:
    async def load() -> None:
        async with replicated(tiny_gguf) as (both, engines):
            expected = [await text(both, short(number)) for number in range(NUM_CLIENTS)]
            stop = asyncio.Event()
            num_answers = 0

            async def client(number: int) -> None:
                nonlocal num_answers
                while not stop.is_set():
                    assert await text(both, short(number)) == expected[number]
                    num_answers += 1

            clients = [asyncio.create_task(client(number)) for number in range(NUM_CLIENTS)]
            fresh = [new_engine(tiny_gguf, context_length=2048) for _ in engines]
            async with asyncio.timeout(LIMIT_S):
                for name, engine in zip("ab", fresh, strict=True):
                    await both.replace(name, engine, drain_s=LIMIT_S)
                before = num_answers
                while num_answers < before + NUM_CLIENTS:
                    await asyncio.sleep(0.01)
                stop.set()
                await asyncio.gather(*clients)
            assert not any(engine.ready for engine in engines)
            assert all(engine.ready for engine in fresh)

    asyncio.run(load())


def test_a_new_engine_that_cannot_load_leaves_the_old_one(tiny_gguf: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")

    async def replace() -> None:
        async with replicated(tiny_gguf) as (both, engines):
            with pytest.raises(UserError):
                await both.replace("a", new_engine(broken), drain_s=1)
            assert all(engine.ready for engine in engines)
            assert await text(both, short(1))

    asyncio.run(replace())


def test_one_prefix_goes_to_one_replica(tiny_gguf: Path) -> None:
    async def ask() -> None:
        async with replicated(tiny_gguf) as (both, engines):
            asked: list[int] = []
            for number, engine in enumerate(engines):
                complete = engine.complete

                def told(request: Completion, number: int = number, complete=complete):  # type: ignore[no-untyped-def] # noqa: ANN202, ANN001
                    asked.append(number)
                    return complete(request)

                engine.complete = told  # type: ignore[method-assign]
            for _ in range(3):
                with suppress(EngineError):
                    await text(both, short(2))
            assert len(asked) == 3
            assert len(set(asked)) == 1

    asyncio.run(ask())
