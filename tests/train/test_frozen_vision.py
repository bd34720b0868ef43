from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from configs.schema import LoraConfig
from tests.tiny_mistral3 import build_tiny_mistral3
from train.frozen_vision import freeze_vision
from train.lora import build_lora
from train.quantized_base import load_base

IMG, IMG_END = 10, 13
SIZES = [(56, 28), (28, 56), (28, 28), (56, 56)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_mistral3(
        tmp_path_factory.mktemp("mistral3") / "checkpoint", dtype=torch.float32
    )


def load(checkpoint: Path, *, frozen: bool) -> PreTrainedModel:
    base = load_base(checkpoint, quantization="none", with_images=True)
    base.float()
    if frozen:
        freeze_vision(base)
    return base


def images(*sizes: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Images of noise, padded to the largest."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.zeros(len(sizes), 3, max(h for h, _ in sizes), max(w for _, w in sizes))
    for image, (height, width) in zip(pixels, sizes, strict=True):
        image[:, :height, :width] = torch.randn(3, height, width, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)}


def batch(*sizes: tuple[int, int]) -> dict[str, Any]:
    ids = [1]
    for height, width in sizes:
        ids += [IMG] * (height * width // 28**2) + [IMG_END]
    return {"input_ids": torch.tensor([[*ids, 50, 2]]), **images(*sizes)}


def test_features_are_those_of_all_images_together(checkpoint: Path) -> None:
    features = [
        load(checkpoint, frozen=frozen).model.get_image_features(**images(*SIZES)).pooler_output
        for frozen in (False, True)
    ]
    assert [len(one) for one in features[1]] == [2, 2, 1, 4]
    for expected, found in zip(*features, strict=True):
        assert torch.allclose(found, expected, atol=1e-6 * float(expected.abs().max()))


def test_several_feature_layers_stand_side_by_side(checkpoint: Path) -> None:
    outputs = []
    for frozen in (False, True):
        base = load(checkpoint, frozen=False)
        base.config.vision_feature_layer = [-1, 1]
        if frozen:
            freeze_vision(base)
        outputs.append(base.model.vision_tower(**images(*SIZES), output_hidden_states=True))
    for layer in (-1, 1):
        assert torch.allclose(outputs[1].hidden_states[layer], outputs[0].hidden_states[layer])
    assert outputs[1].hidden_states[0] is None


def test_a_single_image_of_one_token_is_no_special_case(checkpoint: Path) -> None:
    logits = load(checkpoint, frozen=True)(**batch((28, 28))).logits
    assert logits.shape == (1, 5, 320)
    # The fault that this is about: where it is gone, `FrozenProjector` can go too.
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        load(checkpoint, frozen=False)(**batch((28, 28)))


@pytest.mark.parametrize("frozen", [True, False])
def test_the_backward_pass_ends_before_the_images(checkpoint: Path, frozen: bool) -> None:
    base = load(checkpoint, frozen=frozen)
    model: PeftModel = get_peft_model(base, build_lora(LoraConfig(rank=2), base))
    model.train()
    base.gradient_checkpointing_enable()
    seen: list[bool] = []
    base.model.vision_tower.register_forward_hook(
        lambda _, __, states: seen.append(states.hidden_states[-1].requires_grad)
    )
    base.model.multi_modal_projector.register_forward_hook(
        lambda _, __, features: seen.append(features.requires_grad)
    )
    logits = model(**batch(*SIZES)).logits
    # Without it transformers does what it is to keep from.
    assert seen == [not frozen] * 2
    logits.square().mean().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None for p in trained)
