"""An MLP that long sequences go through in tiles, at the price of no further computation."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from configs.errors import UserError


class TiledMLP(nn.Module):
    """A gated MLP, `down(act(gate(x)) · up(x))`, whose wide tensors exist for one tile at a time.

    Between hidden states of 5,120 numbers a token Mistral Small 3.1's MLP holds several of 32,768.
    Here neither pass holds them for more than `tile_tokens` tokens: the forward pass keeps its
    input alone, and the backward pass recomputes and differentiates tile by tile.

    Inside a checkpointed layer this costs nothing: the layer's recomputation stops at the last
    tensor that was saved in it, which is this module's input, so the MLP is computed twice in all,
    as without tiles.

    It has the names of the MLP that it replaces, and so have an adapter's tensors in it.
    """

    def __init__(self, mlp: Any, tile_tokens: int) -> None:  # noqa: ANN401 - any gated MLP
        super().__init__()
        self.gate_proj = mlp.gate_proj
        self.up_proj = mlp.up_proj
        self.down_proj = mlp.down_proj
        self.act_fn = mlp.act_fn
        self.tile_tokens = tile_tokens

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(1, tokens, hidden_size) to the same shape."""
        if hidden.shape[1] <= self.tile_tokens:
            return self.compute(hidden)
        if not (torch.is_grad_enabled() and hidden.requires_grad):
            return torch.cat([self.compute(tile) for tile in self.tiles(hidden)], dim=1)
        held: torch.Tensor = _Hold.apply(hidden)  # type: ignore[no-untyped-call]
        trained = [p for p in self.parameters() if p.requires_grad]
        out: torch.Tensor = _Tiles.apply(  # type: ignore[no-untyped-call]
            held, held.grad_fn, self, *trained
        )
        return out

    def compute(self, hidden: torch.Tensor) -> torch.Tensor:
        """All tokens at once."""
        out: torch.Tensor = self.down_proj(
            self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden)
        )
        return out

    def tiles(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """Views of (1, up to `tile_tokens`, …)."""
        return iter(tensor.split(self.tile_tokens, dim=1))


def tile_mlps(model: nn.Module, tile_tokens: int) -> None:
    """Replace every gated MLP of a language model by a `TiledMLP`, before it gets an adapter."""
    parts = ("gate_proj", "up_proj", "down_proj", "act_fn")
    found = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if name == "mlp" and all(hasattr(child, part) for part in parts)
    ]
    if not found:
        raise UserError(
            f"{type(model).__name__} has no MLPs of the gated form that can be tiled",
            where="train.mlp_tile_tokens",
            remedy="remove the setting",
        )
    for parent, name in found:
        setattr(parent, name, TiledMLP(getattr(parent, name), tile_tokens))


class _Hold(torch.autograd.Function):
    """Saves its input for `_Tiles`, so that it counts as saved before the tiles are computed."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        ctx.save_for_backward(hidden)
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        return gradient


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        held: torch.Tensor,
        hold: Any,  # noqa: ANN401 - the node of `_Hold`
        mlp: TiledMLP,
        *trained: nn.Parameter,
    ) -> torch.Tensor:
        ctx.hold, ctx.mlp, ctx.trained = hold, mlp, trained
        ctx.device_type = held.device.type
        ctx.autocast = (
            torch.is_autocast_enabled(ctx.device_type),
            torch.get_autocast_dtype(ctx.device_type),
        )
        return torch.cat([mlp.compute(tile) for tile in mlp.tiles(held)], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        (hidden,) = ctx.hold.saved_tensors
        enabled, dtype = ctx.autocast
        # Summed in fp32: a long sequence has many tiles, and bf16 would round after each of them.
        sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in ctx.trained]
        of_hidden = torch.empty_like(hidden)
        tiles = zip(
            *(ctx.mlp.tiles(tensor) for tensor in (hidden, gradient, of_hidden)), strict=True
        )
        for tile, gradient_tile, of_tile in tiles:
            leaf = tile.detach().requires_grad_(True)
            with torch.enable_grad(), torch.autocast(ctx.device_type, dtype=dtype, enabled=enabled):
                out = ctx.mlp.compute(leaf)
            found = torch.autograd.grad(out, [leaf, *ctx.trained], gradient_tile)
            of_tile.copy_(found[0])
            for total, one in zip(sums, found[1:], strict=True):
                total.add_(one)
        of_trained = (total.to(p.dtype) for total, p in zip(sums, ctx.trained, strict=True))
        return of_hidden, None, None, *of_trained
