"""How `vllm serve` is called for an artefact: its arguments and its environment.

Written against the parser of vLLM 0.33; contract tests start it with them where it is installed.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.serve_schema import VllmConfig

Json = dict[str, Any]

MAX_REQUESTS = 256
"""Requests that vLLM works on at the same time; how many fit, the card's memory decides."""
MAX_IMAGES = 8
"""Images of a request, as the hosted interface has it."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM makes room for."""
TOOL_PARSERS = {
    "[TOOL_CALLS]": "mistral",
    "<tool_call>": "hermes",
    "<|python_tag|>": "llama3_json",
}
"""What a chat template writes in front of a call, and who reads it."""
OWN_VARIABLES = ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "__PYVENV_LAUNCHER__")


@dataclass(frozen=True, kw_only=True)
class VllmFacts:
    """What an artefact's folder says. max_context: in tokens; tool_parser: None for no tools."""

    max_context: int | None
    takes_images: bool
    tool_parser: str | None


def read_facts(folder: Path) -> VllmFacts:
    """Look at what vLLM will load. Raises `UserError` where that is no model's folder."""
    config = _read_json(folder / "config.json", "the artefact")
    text = {**config, **config.get("text_config", {})}
    length = text.get("max_position_embeddings")
    template = _chat_template(folder)
    return VllmFacts(
        max_context=length if isinstance(length, int) else None,
        takes_images="vision_config" in config,
        tool_parser=next((name for mark, name in TOOL_PARSERS.items() if mark in template), None),
    )


def find_command(config: VllmConfig) -> list[str]:
    """The configured command with the path of its program. Raises `UserError` where it is not."""
    program = shutil.which(config.command[0])
    if program is None:
        raise UserError(
            f"the command {config.command[0]} is not there",
            where="serve.engine.command",
            remedy="install vLLM into an environment of its own and give the path of its "
            "program, such as [/opt/vllm/bin/vllm]",
        )
    return [program, *config.command[1:]]


def build_arguments(
    folder: Path,
    facts: VllmFacts,
    *,
    model: str,
    config: VllmConfig,
    context_length: int,
    adapters: Mapping[str, Path],
    socket: Path,
) -> list[str]:
    """What follows the command: `serve`, the folder and all options."""
    arguments = ["serve", str(folder.resolve()), "--served-model-name", model]
    arguments += ["--uds", str(socket), "--max-model-len", str(context_length)]
    arguments += ["--max-num-seqs", str(MAX_REQUESTS)]
    arguments += ["--tensor-parallel-size", str(config.tensor_parallel)]
    arguments += ["--gpu-memory-utilization", str(config.memory_share)]
    # Left to guess, it takes Mistral's own tokenizer and files where it finds any, and sampling
    # from generation_config.json.
    arguments += ["--tokenizer-mode", "hf", "--config-format", "hf"]
    arguments += ["--load-format", "safetensors", "--generation-config", "vllm"]
    arguments += ["--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    if facts.takes_images:
        arguments += ["--limit-mm-per-prompt", json.dumps({"image": MAX_IMAGES})]
    if facts.tool_parser is not None:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", facts.tool_parser]
    if adapters:
        arguments += _adapter_arguments(adapters)
    return [*arguments, *config.further_arguments]


def build_environment(environment: Mapping[str, str], *, program: str, key: str) -> dict[str, str]:
    """vLLM's environment: without what belongs to our Python, and without reports to anyone.

    key: what it asks of its clients, on the command line for all to see otherwise.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith("PYTHON") and name not in OWN_VARIABLES
    }
    # Its compilers and build tools stand beside its program.
    own = {str(Path(sys.prefix) / "bin"), str(Path(sys.executable).parent)}
    path = [part for part in kept.get("PATH", os.defpath).split(os.pathsep) if part not in own]
    kept["PATH"] = os.pathsep.join([str(Path(program).parent), *path])
    return kept | {
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _adapter_arguments(adapters: Mapping[str, Path]) -> list[str]:
    rank = max(_read_rank(folder) for folder in adapters.values())
    room = next((ranked for ranked in LORA_RANKS if ranked >= rank), None)
    if room is None:
        raise UserError(
            f"vLLM takes adapters up to rank {LORA_RANKS[-1]}, but one has rank {rank}",
            remedy="serve that variant merged, or train it with a smaller rank",
        )
    modules = [
        json.dumps({"name": name, "path": str(folder.resolve())})
        for name, folder in adapters.items()
    ]
    return [
        "--enable-lora",
        *("--max-loras", str(len(adapters)), "--max-lora-rank", str(room)),
        *("--lora-modules", *modules),
    ]


def _read_rank(folder: Path) -> int:
    file = folder / "adapter_config.json"
    config = _read_json(file, "the adapter")
    if config.get("use_dora") or config.get("modules_to_save"):
        raise UserError(
            "vLLM takes plain LoRA adapters, and this one has magnitudes (DoRA) or whole modules",
            where=file,
            remedy="serve this variant merged",
        )
    return max(int(rank) for rank in (config["r"], *config.get("rank_pattern", {}).values()))


def _chat_template(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = _read_json(folder / "tokenizer_config.json", "the tokenizer").get("chat_template")
    if template is None:
        raise UserError(
            "the artefact has no chat template, so what the model expects is unknown",
            where=folder,
            remedy="make it with `tunery merge`, which puts a chat_template.jinja there",
        )
    return json.dumps(template, ensure_ascii=False)  # one template, or several by name


def _read_json(file: Path, what: str) -> Json:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{what} cannot be read: {error}",
            where=file,
            remedy="give a folder that `tunery merge` or `tunery train` has made",
        ) from error
    assert isinstance(content, dict)
    return content
