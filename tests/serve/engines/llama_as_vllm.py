"""NOT vLLM: a command that takes `vllm serve`'s arguments and answers with llama.cpp.

It stands in where vLLM cannot be installed, to try how the process is started, watched, restarted
and ended, with a real model behind it. What vLLM itself does with a request, it cannot tell: for
that, the same tests run against the command `vllm` wherever there is one.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.serve.engines.llama_host import open_llama_http

GGUF = "tiny.gguf"
"""Beside the folder's config.json: what is answered with."""
START_LOG = "starts.log"
"""A line for each start, in the same folder."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of vLLM 0.33 that are used, as its own parser has them."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model_tag", type=Path)
    for name in ("--served-model-name", "--tool-call-parser", "--limit-mm-per-prompt"):
        parser.add_argument(name)
    for name in ("--max-num-seqs", "--tensor-parallel-size", "--max-model-len"):
        parser.add_argument(name, type=int)
    parser.add_argument("--uds", required=True)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--tokenizer-mode", choices=["auto", "hf", "mistral"])
    parser.add_argument("--config-format", choices=["auto", "hf", "mistral"])
    parser.add_argument("--load-format", choices=["auto", "safetensors"])
    parser.add_argument("--generation-config", choices=["auto", "vllm"])
    for name in ("--enable-auto-tool-choice", "--disable-uvicorn-access-log", "--enable-lora"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--disable-fastapi-docs", action="store_true")
    for name in ("--max-loras", "--max-lora-rank"):
        parser.add_argument(name, type=int)
    parser.add_argument("--lora-modules", nargs="+")
    return parser.parse_args(arguments)


def main() -> None:
    told = parse(sys.argv[1:])
    with (told.model_tag / START_LOG).open("a") as log:
        log.write(f"{os.getpid()}\n")
    gguf = told.model_tag / GGUF
    if not gguf.exists():
        sys.exit("ValueError: no safetensors here")
    server = open_llama_http(
        gguf,
        address=told.uds,
        port=0,
        key=os.environ["VLLM_API_KEY"],
        context_length=told.max_model_len,
        num_slots=1,
    )
    print("Uvicorn running on", server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
