"""Starting llama.cpp's server inside this process, quiet and closed to everyone else."""

import mmap
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import httpx
import xllamacpp

from configs.errors import UserError
from serve.socket_folder import make_socket_folder

PROMPT_BATCH_TOKENS = 32
"""Prompt tokens evaluated between two looks at whether the client is still there.

Measured with SmolLM2-135M on one core: a prompt whose client has gone ends within 0.4 s, instead of
0.8 s with 64 and 3 s with llama.cpp's own 512. Prompts of 60 tokens cost nothing by it (166 and 168
tokens/s), those of 800 a fifth (123 tokens/s instead of 157 with 64); the speeds were taken beside
another busy process.
"""

MAX_IMAGE_TOKENS = 3025
"""55 x 55, of Mistral's largest image, 1540 pixels a side. llama.cpp's own limit is lower, and its
least of eight tokens would stretch small ones."""

HEADER_BYTES = 64 * 2**20
"""Where a GGUF's metadata ends at the latest: vocabularies are a few megabytes."""


class LlamaServer(NamedTuple):
    """llama.cpp's running server. context_length: tokens per request, as the model allows."""

    server: xllamacpp.Server
    context_length: int


class Door(NamedTuple):
    """Where llama.cpp listens for HTTP, and the key that it asks for.

    socket: a path in a folder that only this user can enter, of at most 100 characters.
    """

    socket: Path
    key: str


@contextmanager
def new_door() -> Iterator[Door]:
    """A socket's path in a private folder that goes with the block, and a secret key."""
    folder = make_socket_folder()
    try:
        yield Door(folder / "llama.sock", secrets.token_hex(16))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load_llama_server(
    model_path: Path,
    *,
    num_threads: int,
    context_length: int,
    num_slots: int,
    mmproj: Path | None = None,
    lora: Path | None = None,
    adapters: Sequence[Path] = (),
    door: Door | None = None,
) -> LlamaServer:
    """Load a GGUF; blocks the whole interpreter until that is done.

    context_length: tokens of prompt and answer together per slot, cut to what the model was trained
    for; mmproj: the GGUF of the vision tower; lora: the GGUF of an adapter, applied in full;
    adapters: GGUFs of adapters that a request's `lora` field picks by their numbers here, instead
    of one for all; door: where llama.cpp's own interface stays open, which is closed otherwise.
    Raises `UserError` when a file is missing or is no usable GGUF.
    """
    check_files(model_path, mmproj=mmproj, lora=lora, adapters=adapters)
    params = build_parameters(
        model_path, num_threads=num_threads, context_length=context_length, num_slots=num_slots
    )
    if mmproj is not None:
        params.mmproj.path = str(mmproj)
        params.image_min_tokens, params.image_max_tokens = 1, MAX_IMAGE_TOKENS
    if lora is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
    elif adapters:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(one), 0.0) for one in adapters]
        params.lora_init_without_apply = True
    if door is not None:
        params.verbosity = 1  # errors, which a process of its own keeps in its log
    with new_door() if door is None else nullcontext(door) as listening:
        return _start(params, model_path, listening)


def check_files(
    model_path: Path,
    *,
    mmproj: Path | None = None,
    lora: Path | None = None,
    adapters: Sequence[Path] = (),
) -> None:
    """Name the faults that llama.cpp only reports as one, as `UserError`."""
    for path in (model_path, mmproj, lora, *adapters):
        if path is not None:
            _check_magic(path)
    with (
        model_path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content.find(b"tokenizer.chat_template", 0, HEADER_BYTES) < 0:
            raise UserError(
                "the GGUF file holds no chat template, so what the model expects is unknown",
                where=model_path,
                remedy="convert the model again, with a `chat_template` in its tokenizer",
            )


def _check_magic(model_path: Path) -> None:
    if not model_path.is_file():
        raise UserError(
            "the model file does not exist",
            where=model_path,
            remedy="give the path of a GGUF file, such as a run's artefacts/*.gguf",
        )
    with model_path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(
                "the model is not a GGUF file",
                where=model_path,
                remedy="give a GGUF file; `tunery merge` makes one of a trained run",
            )


def build_parameters(
    model_path: Path, *, num_threads: int, context_length: int, num_slots: int
) -> xllamacpp.CommonParams:
    """How llama.cpp loads a model here, but for its door; lengths as in `load_llama_server`."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model_path)
    params.n_ctx = context_length * num_slots
    params.n_parallel = num_slots
    params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
    params.cache_ram_mib = 0  # or gigabytes of old prompts are kept, and restored into slots
    params.use_jinja = True
    params.prefill_assistant = False  # a last assistant turn is a turn, not the answer's beginning
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.verbosity = 0
    params.ui = False
    # A connection holds a thread for as long as it is kept, and a little longer when it breaks.
    params.n_threads_http = 2 * num_slots + 2
    params.sse_ping_interval = -1  # silence is to mean that the model itself says nothing
    return params


def _start(params: xllamacpp.CommonParams, model_path: Path, door: Door) -> LlamaServer:
    """Start the server, whose own interface has none of the checks of this package, at `door`."""
    params.api_keys = [door.key]
    params.hostnames = [str(door.socket)]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise UserError(
            "llama.cpp could not load the model",
            where=model_path,
            remedy="check that the file is whole and that there is memory for it; "
            "`serve.context_length` and `serve.num_slots` decide what it needs besides",
        ) from error
    with connect(door) as http:
        slots = http.get("/slots").raise_for_status().json()
    return LlamaServer(server, slots[0]["n_ctx"])


def connect(door: Door) -> httpx.Client:
    """A client of llama.cpp's own interface; it waits for an answer however long that takes."""
    return httpx.Client(
        base_url="http://llama",
        transport=httpx.HTTPTransport(uds=str(door.socket)),
        headers={"Authorization": f"Bearer {door.key}"},
        timeout=httpx.Timeout(None),
    )
