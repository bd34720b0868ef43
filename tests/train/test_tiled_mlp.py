from collections import Counter

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from configs.errors import UserError
from tests.train.largest_tensors import LargestTensors, saved_shapes
from train.tiled_mlp import TiledMLP, tile_mlps

NUM_TOKENS = 50


def build_model(*, tile_tokens: int | None) -> torch.nn.Module:
    """A Llama in fp32 with LoRA on its MLPs; the same weights with tiles and without."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config)
    if tile_tokens:
        tile_mlps(model, tile_tokens)
    torch.manual_seed(4)
    peft_model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return peft_model


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    ids = torch.arange(NUM_TOKENS)[None] % 64
    model(ids, use_cache=False).logits.square().mean().backward()
    return {
        name.replace(".base_layer", ""): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("tile_tokens", [7, 25, 49])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_tiles_give_the_gradients_of_the_whole(tile_tokens: int, checkpointing: bool) -> None:
    whole, tiled = build_model(tile_tokens=None), build_model(tile_tokens=tile_tokens)
    for model in (whole, tiled):
        model.train()
        if checkpointing:
            model.enable_input_require_grads()  # type: ignore[operator]
            model.gradient_checkpointing_enable()  # type: ignore[operator]
    expected, found = gradients(whole), gradients(tiled)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-8)


def test_adapter_keeps_the_names_that_servers_know() -> None:
    names = [
        [name for name, _ in build_model(tile_tokens=tile).named_parameters()] for tile in (None, 7)
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("tile_tokens", [None, 10])
def test_a_checkpointed_layer_computes_its_mlp_twice_with_tiles_or_without(
    tile_tokens: int | None,
) -> None:
    model = build_model(tile_tokens=tile_tokens)
    model.train()
    model.enable_input_require_grads()  # type: ignore[operator]
    model.gradient_checkpointing_enable()  # type: ignore[operator]
    tokens: Counter[str] = Counter()
    for name, module in model.named_modules():
        if name.endswith("up_proj"):
            module.register_forward_hook(
                lambda _, inputs, __, name=name: tokens.update({name: inputs[0].shape[1]})
            )
    gradients(model)
    assert set(tokens.values()) == {2 * NUM_TOKENS}


def test_no_wide_tensor_is_saved_for_the_backward_pass() -> None:
    mlp = build_model(tile_tokens=10).get_submodule("base_model.model.model.layers.0.mlp")
    assert isinstance(mlp, TiledMLP)
    hidden = torch.randn(1, NUM_TOKENS, 32, requires_grad=True)
    with saved_shapes() as saved:
        mlp(hidden)
    assert saved == [torch.Size((1, NUM_TOKENS, 32))]


@pytest.mark.parametrize("with_gradients", [True, False])
def test_no_wide_tensor_is_ever_made_of_more_than_a_tile(with_gradients: bool) -> None:
    mlp = build_model(tile_tokens=10).get_submodule("base_model.model.model.layers.0.mlp")
    with LargestTensors() as seen, torch.set_grad_enabled(with_gradients):
        hidden = torch.randn(1, NUM_TOKENS, 32, requires_grad=with_gradients)
        out = mlp(hidden)
        if with_gradients:
            out.sum().backward()
    assert seen.largest <= max(NUM_TOKENS * 32, 32 * 96)


def test_without_gradients_tiles_give_the_same_too() -> None:
    whole, tiled = build_model(tile_tokens=None), build_model(tile_tokens=8)
    ids = torch.arange(NUM_TOKENS)[None]
    with torch.no_grad():
        torch.testing.assert_close(tiled(ids).logits, whole(ids).logits)


def test_autocast_of_the_forward_pass_holds_in_the_backward_pass() -> None:
    mlp = build_model(tile_tokens=10).get_submodule("base_model.model.model.layers.0.mlp")
    hidden = torch.randn(1, NUM_TOKENS, 32, requires_grad=True)

    def run(module: torch.nn.Module) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out = module(hidden)
        (gradient,) = torch.autograd.grad(out.float().sum(), hidden)
        return gradient

    assert isinstance(mlp, TiledMLP)
    tiled = run(mlp)
    mlp.tile_tokens = NUM_TOKENS
    torch.testing.assert_close(tiled, run(mlp), rtol=1e-5, atol=1e-7)
    with torch.autocast("cpu", torch.bfloat16):
        out = checkpoint(mlp, hidden, use_reentrant=False)
    assert out.dtype == torch.bfloat16


def test_a_model_without_gated_mlps_is_refused() -> None:
    with pytest.raises(UserError, match="no MLPs of the gated form"):
        tile_mlps(torch.nn.Sequential(torch.nn.Linear(4, 4)), 8)
