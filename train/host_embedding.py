"""Keep the input embedding off the card: a token needs 10 KB of it, the whole takes over 1 GiB."""

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from configs.errors import UserError


class HostEmbedding(torch.nn.Embedding):
    """A frozen embedding whose table stays in host memory; its vectors go where the ids are.

    The table is a plain tensor and no parameter: `.to(device)`, accelerate and whoever asks for the
    device of a model's parameters pass it by, and the state dict does not hold it.
    """

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        torch.nn.Module.__init__(self)
        self.num_embeddings = embedding.num_embeddings
        self.embedding_dim = embedding.embedding_dim
        self.padding_idx = embedding.padding_idx
        self.max_norm = None
        self.norm_type = 2.0
        self.scale_grad_by_freq = False
        self.sparse = False
        self.weight = embedding.weight.detach().cpu()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Vectors (*ids.shape, embedding_dim) on the device of the ids."""
        if input.device.type != "cuda":
            return F.embedding(input, self.weight)
        # From pinned memory the copy runs beside the host's next work; it is the few vectors that
        # are copied, so it is these that are pinned and not the table.
        ids = input.cpu().flatten()
        shape = (ids.numel(), self.embedding_dim)
        vectors = torch.empty(shape, dtype=self.weight.dtype, pin_memory=True)
        torch.index_select(self.weight, 0, ids, out=vectors)
        return vectors.view(*input.shape, -1).to(input.device, non_blocking=True)


def offload_input_embedding(model: PreTrainedModel) -> None:
    """Replace the model's input embedding by one in host memory.

    Errors: `UserError` where the head is the same tensor, since the head has to be on the card.
    """
    check_untied(model)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    model.set_input_embeddings(HostEmbedding(embedding))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def check_untied(model: PreTrainedModel) -> None:
    """Raise a `UserError` where head and input embedding are one tensor."""
    head = model.get_output_embeddings()
    if head is not None and head.weight is model.get_input_embeddings().weight:
        raise UserError(
            "this model's head is its input embedding, which cannot be kept in host memory then",
            where=model.config.name_or_path,
            remedy="set train.offload_embedding: false",
        )
