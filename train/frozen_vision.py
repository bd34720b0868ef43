"""A vision tower that is only looked through: one image at a time, and never in a backward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class FrozenTower(nn.Module):
    """Stands in the place of a frozen vision tower and computes its features, with less memory.

    transformers lines up the patches of all images of a batch and masks them from each other: a
    mask of patches by patches, 4.4 GiB for four images of 12,100. One at a time, none sees another
    anyway. And under gradient checkpointing it makes the patches of frozen towers require a
    gradient, so that all of the tower is kept and differentiated for nothing.
    """

    def __init__(self, tower: nn.Module, feature_layers: Sequence[int]) -> None:
        super().__init__()
        self.tower = tower
        self.feature_layers = feature_layers
        self.patch_size = tower.patch_size

    @torch.no_grad()
    def forward(
        self,
        pixel_values: torch.Tensor,
        image_sizes: torch.Tensor,
        **options: Any,  # noqa: ANN401 - the tower's own
    ) -> BaseModelOutputWithPooling:
        """The hidden states of the feature layers, (1, patches of all images, hidden_size) each.

        pixel_values: (images, 3, height, width), padded; image_sizes: (images, 2), their true
        heights and widths in pixels. The other layers' states are not kept.
        """
        sizes = image_sizes.tolist()
        seen = []
        for image, (height, width) in zip(pixel_values, sizes, strict=True):
            cut = image[None, :, :height, :width]
            states = self.tower(cut, image_sizes=[(height, width)], **options).hidden_states
            seen.append([states[layer] for layer in self.feature_layers])
        kept: list[Any] = [None] * len(states)
        for layer, of_images in zip(self.feature_layers, zip(*seen, strict=True), strict=True):
            kept[layer] = torch.cat(of_images, dim=1)
        return BaseModelOutputWithPooling(hidden_states=tuple(kept))


class FrozenProjector(nn.Module):
    """Stands in the place of a frozen projector.

    Its features get a first dimension of 1, which Mistral3 takes away. As of transformers 5.17 it
    takes away the dimension of the features instead where there is a single one, and fails: where
    the one image of a batch is of one token, 28 × 28 pixels.
    """

    def __init__(self, projector: nn.Module) -> None:
        super().__init__()
        self.projector = projector

    @torch.no_grad()
    def forward(self, states: torch.Tensor, image_sizes: torch.Tensor) -> torch.Tensor:
        """Features of shape (1, image tokens, hidden_size), from states of (patches, …)."""
        features: torch.Tensor = self.projector(states, image_sizes)[None]
        return features


def freeze_vision(model: PreTrainedModel) -> None:
    """Wrap a Mistral3's frozen vision tower and projector; before adapters are put on it."""
    inner: Any = model.base_model
    layers = model.config.vision_feature_layer
    layers = [layers] if isinstance(layers, int) else layers
    inner.vision_tower = FrozenTower(inner.vision_tower, layers)
    inner.multi_modal_projector = FrozenProjector(inner.multi_modal_projector)
