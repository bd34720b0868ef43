from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from transformers import Mistral3Config, Mistral3ForConditionalGeneration

from train.quantized_base import check_quantized, load_base


def test_nf4_base_is_really_4_bit_with_double_quantization(tiny_checkpoint: Path) -> None:
    model = load_base(tiny_checkpoint, quantization="nf4")
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    assert len(linears) == 2 * 7
    for module in linears.values():
        assert isinstance(module, Linear4bit)
        assert isinstance(module.weight, Params4bit)
        assert module.weight.quant_type == "nf4"
        assert module.weight.quant_state.nested
        assert module.weight.dtype == torch.uint8
        assert module.weight.numel() == module.in_features * module.out_features // 2
    assert not isinstance(model.get_output_embeddings(), Linear4bit)


def test_base_is_frozen_and_nothing_is_upcast_to_fp32(tiny_checkpoint: Path) -> None:
    model = load_base(tiny_checkpoint, quantization="nf4")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.uint8, torch.bfloat16}


def test_without_quantization_the_base_is_bf16(tiny_checkpoint: Path) -> None:
    model = load_base(tiny_checkpoint, quantization="none")
    assert not any(isinstance(module, Linear4bit) for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_layer_left_unquantized_is_noticed(tiny_checkpoint: Path) -> None:
    model = load_base(tiny_checkpoint, quantization="nf4")
    model.model.layers[1].mlp.down_proj = torch.nn.Linear(128, 64)
    with pytest.raises(AssertionError, match=r"model\.layers\.1\.mlp\.down_proj is Linear"):
        check_quantized(model)


def test_gradients_through_the_base_are_the_same_after_a_validation(tiny_checkpoint: Path) -> None:
    model = load_base(tiny_checkpoint, quantization="nf4")

    def gradient() -> torch.Tensor:
        model.train()
        embeddings = model.get_input_embeddings()(torch.arange(5, 25)[None]).detach()
        embeddings.requires_grad_(True)
        model(inputs_embeds=embeddings).logits.float().square().mean().backward()
        assert isinstance(embeddings.grad, torch.Tensor)
        return embeddings.grad

    before = gradient()
    model.eval()
    with torch.no_grad():
        model(torch.arange(5, 25)[None])
    assert torch.equal(gradient(), before)


def test_vision_tower_and_projector_of_mistral3_stay_unquantized(tmp_path: Path) -> None:
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": 320,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        },
    )
    tiny = Mistral3ForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    tiny.save_pretrained(tmp_path)
    model = load_base(tmp_path, quantization="nf4")
    quantized = [name for name, m in model.named_modules() if isinstance(m, Linear4bit)]
    assert len(quantized) == 2 * 7
    assert all(name.startswith("model.language_model.") for name in quantized)
