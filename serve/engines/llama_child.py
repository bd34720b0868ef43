"""llama.cpp in a child process of the gateway, reached by HTTP through a private unix socket.

The child watches its standard input, a pipe that only the gateway holds open: however the gateway
ends, even by `kill -9`, the child ends.
"""

import asyncio
import secrets
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from configs.errors import UserError
from serve.engine import EngineUnavailable
from serve.engines.llama_body import refusal
from serve.engines.wire import Json, load_object, read_chunks
from serve.llama_loading import Door, check_files
from serve.llama_process import KEY_FILE, last_words
from serve.socket_folder import make_socket_folder

CHAT_PATH = "/v1/chat/completions"
RETRY_AFTER_S = 2.0
POLL_S = 0.05
CALL_TOKENS = ("[TOOL_CALLS]", "<tool_call>", "<|tool_call|>", "<|python_tag|>")
"""What begins a call in the templates that have a token of its own for it: Mistral's, Qwen's and
SmolLM3's, Granite's, Llama's."""


@dataclass(frozen=True, kw_only=True)
class LlamaFiles:
    """What is loaded, and how.

    mmproj: the GGUF of the vision tower; adapters: GGUFs that requests choose by their numbers
    here; context_length: tokens per request; log: where all that llama.cpp says is kept.
    """

    model: Path
    mmproj: Path | None
    adapters: tuple[Path, ...]
    num_threads: int
    context_length: int
    num_slots: int
    log: Path | None


@dataclass(frozen=True, kw_only=True)
class LlamaFacts:
    """What llama.cpp says of the model it has loaded.

    context_length: tokens per request; takes_tools: whether its template tells it of tools;
    call_tokens: control tokens that begin a call of a tool.
    """

    context_length: int
    chat_template: str
    takes_tools: bool
    call_tokens: tuple[int, ...]


class LlamaChild:
    """A llama.cpp that answers."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        folder: Path,
        log: Path,
        http: aiohttp.ClientSession,
        facts: LlamaFacts,
    ) -> None:
        self.http = http
        self.facts = facts
        self._process = process
        self._folder = folder
        self._log = log

    @property
    def pid(self) -> int:
        """The process that holds the model."""
        return self._process.pid

    async def chat(self, body: Mapping[str, Any]) -> AsyncGenerator[Json, None]:
        """The chunks of a chat completion; closing it breaks the connection, at which llama.cpp
        stops. Raises `TimeoutError` where it is silent, `EngineUnavailable` where it ends, and what
        a refusal amounts to.
        """
        try:
            async with self.http.post(CHAT_PATH, data=orjson.dumps(body)) as response:
                if response.status != 200:
                    raise refusal(response.status, load_object(await response.read()))
                async for chunk in read_chunks(response.content):
                    yield chunk
        except TimeoutError:  # aiohttp's are client errors as well
            raise
        except (aiohttp.ClientError, RuntimeError) as error:  # the latter where it is closed
            raise EngineUnavailable(
                "llama.cpp ended in the middle of the answer", retry_after_s=RETRY_AFTER_S
            ) from error

    async def wait(self) -> str:
        """See `Child.wait`."""
        code = await self._process.wait()
        return f"it ended with code {code}; it said:\n{last_words(self._log)}"

    async def end(self) -> None:
        """See `Child.end`."""
        await _kill(self._process)
        await self.http.close()
        _remove(self._folder)


async def launch_llama(files: LlamaFiles, *, silence_s: float) -> LlamaChild:
    """Load a model in a child process; returns once it answers, and leaves nothing where it fails.

    silence_s: seconds after which requests to it fail with `aiohttp.ServerTimeoutError` when it
    says nothing. Raises `UserError`, with llama.cpp's last words, when it cannot be loaded.
    """
    await asyncio.to_thread(check_files, files.model, mmproj=files.mmproj, adapters=files.adapters)
    folder = make_socket_folder()
    try:
        door = Door(folder / "llama.sock", secrets.token_hex(16))
        (folder / KEY_FILE).write_text(door.key, encoding="ascii")
        log = files.log or folder / "llama.log"
        async with _started(_command(files, door.socket), log) as process:
            await _wait_until_ready(process, folder / "ready.json", log, files.model)
            async with _connected(door, silence_s) as http:
                return LlamaChild(process, folder, log, http, await _ask_facts(http))
    except BaseException:
        _remove(folder)
        raise


def _command(files: LlamaFiles, socket: Path) -> list[str]:
    command = [sys.executable, "-P", "-m", "serve.llama_process", str(files.model), str(socket)]
    command += ["--threads", str(files.num_threads), "--slots", str(files.num_slots)]
    command += ["--context", str(files.context_length)]
    command += ["--mmproj", str(files.mmproj)] if files.mmproj is not None else []
    for adapter in files.adapters:
        command += ["--adapter", str(adapter)]
    return [*command, "--ready-file", str(socket.parent / "ready.json"), "--until-stdin-closes"]


@asynccontextmanager
async def _started(command: list[str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is ended where the block fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C is for the gateway, which then ends the child
        )
    try:
        yield process
    except BaseException:
        await asyncio.shield(_kill(process))
        raise


async def _wait_until_ready(
    process: asyncio.subprocess.Process, ready_file: Path, log: Path, model: Path
) -> None:
    ended = asyncio.ensure_future(process.wait())
    try:
        while not ready_file.exists():
            done, _ = await asyncio.wait([ended], timeout=POLL_S)
            if done:
                raise UserError(
                    f"llama.cpp could not load the model; it said:\n{last_words(log)}",
                    where=model,
                    remedy="check that the file is whole and that there is memory for it; "
                    "`serve.context_length` and `serve.num_slots` decide what it needs besides",
                )
    finally:
        ended.cancel()


@asynccontextmanager
async def _connected(door: Door, silence_s: float) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that is closed where the block fails."""
    http = aiohttp.ClientSession(
        "http://llama",
        # llama.cpp closes a connection after each stream, and does not say so beforehand.
        connector=aiohttp.UnixConnector(path=str(door.socket), limit=0, force_close=True),
        headers={"Authorization": f"Bearer {door.key}", "Content-Type": "application/json"},
        timeout=aiohttp.ClientTimeout(total=None, sock_read=silence_s, sock_connect=silence_s),
        read_bufsize=2**20,
        auto_decompress=False,
    )
    try:
        yield http
    except BaseException:
        await http.close()
        raise


async def _ask_facts(http: aiohttp.ClientSession) -> LlamaFacts:
    async with http.get("/props", raise_for_status=True) as response:
        props: Mapping[str, Any] = orjson.loads(await response.read())
    async with http.get("/slots", raise_for_status=True) as response:
        slots: list[Mapping[str, Any]] = orjson.loads(await response.read())
    return LlamaFacts(
        context_length=int(slots[0]["n_ctx"]),
        chat_template=str(props["chat_template"]),
        takes_tools=bool(props["chat_template_caps"]["supports_tools"]),
        call_tokens=tuple([token async for token in _find_call_tokens(http)]),
    )


async def _find_call_tokens(http: aiohttp.ClientSession) -> AsyncIterator[int]:
    for text in CALL_TOKENS:
        body = {"content": text, "add_special": False, "parse_special": True}
        async with http.post(
            "/tokenize", data=orjson.dumps(body), raise_for_status=True
        ) as response:
            tokens: list[int] = orjson.loads(await response.read())["tokens"]
        if len(tokens) == 1:
            yield tokens[0]


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End it at once: it has nothing to save, and may be stopped or within the C++ code."""
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
