"""The shapes of a model, from its config.json alone: no weights and no framework are needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from configs.errors import UserError

# Decoders with grouped-query attention and a gated MLP; with biases on query, key and value; with
# norms of each head's query and key.
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
WITH_ATTENTION_BIAS = ("qwen2",)
WITH_HEAD_NORMS = ("qwen3",)


class Linear(NamedTuple):
    """A linear layer's name in its decoder layer, and its shape."""

    name: str
    inputs: int
    outputs: int

    @property
    def size(self) -> int:
        """Weights of the matrix."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Architecture:
    """A decoder and, where there is one, the vision tower in front of it.

    num_vision_weights: weights of tower and projector together; they stay in bf16.
    """

    model_type: str
    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    max_positions: int
    is_tied: bool
    has_attention_bias: bool = False
    has_head_norms: bool = False
    num_vision_weights: int = 0

    @property
    def query(self) -> int:
        """Width of a token's queries, all heads together."""
        return self.num_heads * self.head_dim

    @property
    def key_value(self) -> int:
        """Width of a token's keys, and of its values, all heads together."""
        return self.num_kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, Linear]:
        """The linear layers of one decoder layer, by name."""
        shapes = (
            Linear("q_proj", self.hidden, self.query),
            Linear("k_proj", self.hidden, self.key_value),
            Linear("v_proj", self.hidden, self.key_value),
            Linear("o_proj", self.query, self.hidden),
            Linear("gate_proj", self.hidden, self.mlp),
            Linear("up_proj", self.hidden, self.mlp),
            Linear("down_proj", self.mlp, self.hidden),
        )
        return {linear.name: linear for linear in shapes}

    @property
    def num_linear_weights(self) -> int:
        """Weights of all decoder layers' linear layers: what is quantized."""
        return self.num_layers * sum(linear.size for linear in self.linears.values())

    @property
    def num_embedding_weights(self) -> int:
        """Weights of the input embedding; a head that is not tied to it has as many."""
        return self.vocabulary * self.hidden

    @property
    def num_other_weights(self) -> int:
        """Weights of norms and biases, in bf16."""
        biases = self.query + 2 * self.key_value if self.has_attention_bias else 0
        head_norms = 2 * self.head_dim if self.has_head_norms else 0
        return self.num_layers * (2 * self.hidden + biases + head_norms) + self.hidden

    @property
    def num_weights(self) -> int:
        """All weights, each counted once."""
        embeddings = self.num_embedding_weights * (1 if self.is_tied else 2)
        others = self.num_other_weights + self.num_vision_weights
        return self.num_linear_weights + embeddings + others

    def num_lora_weights(self, rank: int) -> int:
        """Weights of an adapter on every linear layer: A (rank, inputs) and B (outputs, rank)."""
        widths = sum(linear.inputs + linear.outputs for linear in self.linears.values())
        return self.num_layers * rank * widths


def read_architecture(config: Mapping[str, Any], *, where: str) -> Architecture:
    """The architecture that a config.json describes; `where` is told in errors.

    Errors: `UserError` for a kind of model that the planner does not know, and for missing keys.
    """
    model_type = config.get("model_type")
    text = config.get("text_config", {}) if model_type == "mistral3" else config
    if text.get("model_type") not in MODEL_TYPES:
        raise UserError(
            f"no memory plan for models of type {text.get('model_type') or model_type}",
            where=where,
            remedy=f"the planner knows mistral3 and the dense {', '.join(MODEL_TYPES)}; "
            "train without a plan",
        )
    try:
        return _read(config, text)
    except KeyError as error:
        raise UserError(
            f"{error.args[0]} is missing in the model's configuration",
            where=where,
            remedy="take the config.json that belongs to the weights",
        ) from error


def _read(config: Mapping[str, Any], text: Mapping[str, Any]) -> Architecture:
    model_type, heads = text["model_type"], text["num_attention_heads"]
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    return Architecture(
        model_type=config["model_type"],
        num_layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        num_heads=heads,
        num_kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or text["hidden_size"] // heads,
        mlp=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        max_positions=text["max_position_embeddings"],
        is_tied=bool(tied),
        has_attention_bias=model_type in WITH_ATTENTION_BIAS or bool(text.get("attention_bias")),
        has_head_norms=model_type in WITH_HEAD_NORMS,
        num_vision_weights=_num_vision_weights(config, text) if "vision_config" in config else 0,
    )


def _num_vision_weights(config: Mapping[str, Any], text: Mapping[str, Any]) -> int:
    """Weights of the Pixtral tower and of Mistral3's projector behind it."""
    vision = config["vision_config"]
    hidden, mlp = int(vision["hidden_size"]), int(vision["intermediate_size"])
    heads = int(vision["num_attention_heads"])
    attention = 4 * hidden * (vision.get("head_dim") or hidden // heads) * heads
    layer = attention + 3 * hidden * mlp + 2 * hidden
    patches = vision.get("num_channels", 3) * vision["patch_size"] ** 2 * hidden
    tower = patches + hidden + vision["num_hidden_layers"] * layer
    merge = hidden * hidden * config["spatial_merge_size"] ** 2
    projector = hidden + merge + hidden * text["hidden_size"] + text["hidden_size"] ** 2
    if config.get("multimodal_projector_bias"):
        projector += 2 * text["hidden_size"]
    return int(tower + projector)
