import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.serve_schema import VllmConfig
from serve.engines.vllm_command import (
    VllmFacts,
    build_arguments,
    build_environment,
    find_command,
    read_facts,
)
from train.artefacts.served_form import MISTRAL_V7_TEMPLATE

HERMES = "{% for tool in tools %}<tool_call>{{ tool }}</tool_call>{% endfor %}"


def write_folder(folder: Path, *, template: str | None = "{{ messages }}", **config: Any) -> Path:  # noqa: ANN401
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def write_adapter(folder: Path, **config: Any) -> Path:  # noqa: ANN401
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def options(folder: Path, *, adapters: dict[str, Path] | None = None, **config: Any) -> list[str]:  # noqa: ANN401
    return build_arguments(
        folder,
        read_facts(folder),
        model="mine",
        config=VllmConfig(kind="vllm", **config),
        context_length=4096,
        adapters=adapters or {},
        socket=Path("/run/v.sock"),
    )


def value(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_a_mistral_folder_with_images(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "w4a16",
        template=MISTRAL_V7_TEMPLATE.read_text(encoding="utf-8"),
        model_type="mistral3",
        vision_config={},
        text_config={"max_position_embeddings": 131072},
    )
    facts = read_facts(folder)
    assert facts == VllmFacts(max_context=131072, takes_images=True, tool_parser="mistral")
    told = options(folder, tensor_parallel=2, memory_share=0.8, further_arguments=["--seed", "3"])
    assert told[:2] == ["serve", str(folder)]
    assert value(told, "--served-model-name") == "mine"
    assert value(told, "--uds") == "/run/v.sock"
    assert value(told, "--max-model-len") == "4096"
    assert value(told, "--tensor-parallel-size") == "2"
    assert value(told, "--gpu-memory-utilization") == "0.8"
    assert value(told, "--tool-call-parser") == "mistral"
    assert "--enable-auto-tool-choice" in told
    assert json.loads(value(told, "--limit-mm-per-prompt")) == {"image": 8}
    assert value(told, "--tokenizer-mode") == "hf", "the folder has no Mistral files"
    assert told[-2:] == ["--seed", "3"]
    assert "--enable-lora" not in told


def test_a_folder_of_text_without_tools(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, max_position_embeddings=2048)
    told = options(folder)
    assert read_facts(folder) == VllmFacts(max_context=2048, takes_images=False, tool_parser=None)
    assert "--limit-mm-per-prompt" not in told
    assert "--enable-auto-tool-choice" not in told


def test_a_template_in_the_tokenizers_configuration(tmp_path: Path) -> None:
    write_folder(tmp_path, template=None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": HERMES}))
    assert read_facts(tmp_path).tool_parser == "hermes"


@pytest.mark.parametrize("missing", ["config.json", "chat_template.jinja", "template"])
def test_what_is_no_folder_of_a_model(tmp_path: Path, missing: str) -> None:
    write_folder(tmp_path)
    if missing == "template":
        (tmp_path / "tokenizer_config.json").write_text("{}")
        missing = "chat_template.jinja"
    (tmp_path / missing).unlink()
    with pytest.raises(UserError):
        read_facts(tmp_path)


def test_adapters_get_room_for_the_largest(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "base")
    adapters = {
        "a/b=c": write_adapter(tmp_path / "a", r=8, rank_pattern={"q_proj": 24}),
        "d": write_adapter(tmp_path / "d", r=16),
    }
    told = options(folder, adapters=adapters)
    assert "--enable-lora" in told
    assert value(told, "--max-loras") == "2"
    assert value(told, "--max-lora-rank") == "32"
    at = told.index("--lora-modules")
    modules = [json.loads(text) for text in told[at + 1 : at + 3]]
    assert modules == [{"name": name, "path": str(path)} for name, path in adapters.items()]


@pytest.mark.parametrize(
    "config", [{"r": 8, "use_dora": True}, {"r": 8, "modules_to_save": ["head"]}, {"r": 1024}, None]
)
def test_adapters_that_vllm_cannot_take(tmp_path: Path, config: dict[str, Any] | None) -> None:
    folder = write_folder(tmp_path / "base")
    adapter = tmp_path / "a"
    if config is not None:
        write_adapter(adapter, **config)
    with pytest.raises(UserError):
        options(folder, adapters={"a": adapter})


def test_the_environment_is_not_ours() -> None:
    ours = str(Path(sys.executable).parent)
    told = build_environment(
        {
            "PATH": os.pathsep.join([ours, "/usr/bin"]),
            "PYTHONPATH": "/ours",
            "PYTHONHOME": "/ours",
            "VIRTUAL_ENV": "/ours",
            "VLLM_API_KEY": "theirs",
            "CUDA_VISIBLE_DEVICES": "1",
        },
        program="/opt/vllm/bin/vllm",
        key="made-here",
    )
    assert told["PATH"] == os.pathsep.join(["/opt/vllm/bin", "/usr/bin"])
    assert "/ours" not in told.values()
    assert told["VLLM_API_KEY"] == "made-here"
    assert told["CUDA_VISIBLE_DEVICES"] == "1"
    assert told["VLLM_NO_USAGE_STATS"] == told["DO_NOT_TRACK"] == "1"


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no-such-vllm"):
        find_command(VllmConfig(kind="vllm", command=["no-such-vllm"]))
    command = find_command(VllmConfig(kind="vllm", command=["sh", "-c"]))
    assert Path(command[0]).is_absolute()
    assert command[1:] == ["-c"]
