from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from configs.errors import UserError
from configs.load import load_config
from configs.schema import LoraConfig
from train.lora import build_lora
from train.plan.architecture import read_architecture
from train.plan.config_source import find_architecture, read_json

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "train" / "plan" / "architectures").glob("*.json"))
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 512,
}


def build_on_paper(config: dict[str, Any]) -> torch.nn.Module:
    """transformers' own model of a configuration, without memory for its weights."""
    settings = {name: value for name, value in config.items() if name != "model_type"}
    loaded = AutoConfig.for_model(config["model_type"], **settings)
    is_text = config["model_type"] != "mistral3"
    auto: Any = AutoModelForCausalLM if is_text else AutoModelForImageTextToText
    with torch.device("meta"):
        model: torch.nn.Module = auto.from_config(loaded)
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_weights_are_those_of_the_real_class(model_type: str, tied: bool) -> None:
    config = TINY | {"model_type": model_type, "head_dim": 16, "tie_word_embeddings": tied}
    if model_type == "qwen2":
        # It has no such key.
        del config["head_dim"]
    model = build_on_paper(config)
    found = read_architecture(config, where="config.json")
    assert found.num_weights == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_copies_count_as_the_real_classes(file: Path) -> None:
    config = read_json(file)
    # transformers takes the head of Mistral3 for tied where the file says nothing.
    model = build_on_paper({"tie_word_embeddings": False} | config)
    found = read_architecture(config, where=str(file))
    assert found.num_weights == sum(parameter.numel() for parameter in model.parameters())
    assert found.num_linear_weights == sum(
        module.weight.numel()
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in path and "vision" not in path
    )


@pytest.mark.parametrize(("rank", "dora"), [(8, False), (32, True)])
def test_adapter_weights_are_those_that_peft_makes(rank: int, dora: bool) -> None:
    config = TINY | {"model_type": "llama"}
    model: Any = build_on_paper(config)
    with torch.device("meta"):
        adapted = get_peft_model(model, build_lora(LoraConfig(rank=rank, dora=dora), model))
    found = read_architecture(config, where="config.json")
    factors = [
        parameter.numel()
        for name, parameter in adapted.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    ]
    assert found.num_lora_weights(rank) == sum(factors)


def test_mistral_small_has_the_published_numbers() -> None:
    legal = find_architecture(load_config(ROOT / "configs" / "legal.yaml").model).architecture
    assert round(legal.num_linear_weights / 1e9, 2) == 22.23
    assert round(legal.num_lora_weights(32) / 1e6, 1) == 184.8
    assert round(legal.num_weights / 1e9, 1) == 24.0
    assert not legal.is_tied


@pytest.mark.parametrize("model_type", ["mixtral", "gpt2", None])
def test_other_kinds_of_models_are_refused(model_type: str | None) -> None:
    with pytest.raises(UserError, match=r"no memory plan for models of type"):
        read_architecture(TINY | {"model_type": model_type}, where="config.json")


def test_a_missing_key_is_named() -> None:
    config = {name: value for name, value in TINY.items() if name != "vocab_size"}
    with pytest.raises(UserError, match="vocab_size is missing"):
        read_architecture(config | {"model_type": "llama"}, where="config.json")
