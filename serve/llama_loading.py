"""Starting llama.cpp's server inside this process, quiet and closed to everyone else."""

import mmap
import secrets
import tempfile
from pathlib import Path
from typing import NamedTuple

import httpx
import xllamacpp

from configs.errors import UserError

PROMPT_BATCH_TOKENS = 64
"""Prompt tokens evaluated between two looks at whether the client is still there.

Measured with SmolLM2-135M on one busy core: 268 tokens/s against 277 with llama.cpp's own 512, and
a prompt whose client has gone ends within 0.4 s instead of 3 s.
"""

HEADER_BYTES = 64 * 2**20
"""Where a GGUF's metadata ends at the latest: vocabularies are a few megabytes."""


class LlamaServer(NamedTuple):
    """llama.cpp's running server. context_length: tokens per request, as the model allows."""

    server: xllamacpp.Server
    context_length: int


def load_llama_server(
    model_path: Path, *, num_threads: int, context_length: int, num_slots: int
) -> LlamaServer:
    """Load a GGUF; blocks the whole interpreter until that is done.

    context_length: tokens of prompt and answer together per slot, cut to what the model was trained
    for. Raises `UserError` when the file is missing or is no usable GGUF.
    """
    _check_gguf(model_path)
    params = _parameters(
        model_path, num_threads=num_threads, context_length=context_length, num_slots=num_slots
    )
    return _start(params, model_path)


def _check_gguf(model_path: Path) -> None:
    """Name the faults that llama.cpp only reports as one."""
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
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"tokenizer.chat_template", 0, HEADER_BYTES) < 0:
                raise UserError(
                    "the GGUF file holds no chat template, so what the model expects is unknown",
                    where=model_path,
                    remedy="convert the model again, with a `chat_template` in its tokenizer",
                )


def _parameters(
    model_path: Path, *, num_threads: int, context_length: int, num_slots: int
) -> xllamacpp.CommonParams:
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
    return params


def _start(params: xllamacpp.CommonParams, model_path: Path) -> LlamaServer:
    """Start the server and close the door that it opens.

    llama.cpp also listens for HTTP, without any of the checks of this package: it gets a socket in
    a private folder and a secret key, and the socket goes as soon as the context length is read.
    """
    key = secrets.token_hex(16)
    params.api_keys = [key]
    params.n_threads_http = 1
    with tempfile.TemporaryDirectory(prefix="tunery-") as folder:
        socket_path = str(Path(folder) / "llama.sock")
        params.hostnames = [socket_path]
        try:
            server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise UserError(
                "llama.cpp could not load the model",
                where=model_path,
                remedy="check that the file is whole and that there is memory for it; "
                "`serve.context_length` and `serve.num_slots` decide what it needs besides",
            ) from error
        transport = httpx.HTTPTransport(uds=socket_path)
        with httpx.Client(transport=transport, headers={"Authorization": f"Bearer {key}"}) as http:
            slots = http.get("http://llama/slots").raise_for_status().json()
    return LlamaServer(server, slots[0]["n_ctx"])
