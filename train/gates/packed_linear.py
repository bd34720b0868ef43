"""4-bit layers that stay 4-bit: compressed-tensors would unpack the whole model when it first runs.

transformers leaves the weights of a W4A16 checkpoint packed until the first forward pass and then
makes bf16 of all of them at once, 47 GB of a model that was loaded for taking 14. Remove this where
transformers keeps such layers packed by itself.
"""

from types import MethodType

import torch
import torch.nn.functional as F
from compressed_tensors.compressors import BaseCompressor, decompress_module
from compressed_tensors.utils import get_direct_state_dict
from transformers import PreTrainedModel

# Under these names accelerate keeps the method that its hook stands in front of, and the hook.
HOOKED_FORWARD = "_old_forward"


class PackedLinear(torch.nn.Linear):
    """A layer of compressed-tensors' that unpacks its weight for each pass, and forgets it."""

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """(out, in), in the number format of the scales."""
        scheme = self.quantization_scheme
        compressor = BaseCompressor.get_value_from_registry(scheme.format.value)  # type: ignore[union-attr]
        unpacked: torch.Tensor = compressor.decompress(get_direct_state_dict(self), scheme)[
            "weight"
        ]
        return unpacked

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `torch.nn.Linear`."""
        return F.linear(input, self.weight.to(input.dtype), self.bias)


def settle_packed(model: PreTrainedModel, *, unpack: bool) -> None:
    """Unpack the packed layers of a model at once, or have each one unpack when it runs.

    Nothing changes in a model that has none. unpack: for models that are small without packing;
    what is unpacked in each pass takes seconds for every 100 million weights on a CPU.
    """
    hook = getattr(model, "ct_decompress_hook", None)
    if hook is None:
        return
    hook.remove()
    for module in [module for module in model.modules() if hasattr(module, "weight_packed")]:
        if unpack:
            decompress_module(module)
        else:
            module.__class__ = PackedLinear
            forward = MethodType(PackedLinear.forward, module)
            is_hooked = hasattr(module, HOOKED_FORWARD)
            setattr(module, HOOKED_FORWARD if is_hooked else "forward", forward)
