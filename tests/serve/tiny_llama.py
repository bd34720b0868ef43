"""A GGUF of a random Llama made in milliseconds with numpy alone, so that tests of serving need no
torch. Its answers are noise over all bytes, which is what tries a text stream hardest.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

QUANTIZATION = gguf.GGMLQuantizationType.Q8_0
"""As served models have it; its rounding shows in answers how a prompt was cut into pieces."""
END_TOKEN = 2
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['content'] == 'unanswerable' %}"
    "{{ raise_exception('this model takes no unanswerable turns') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = ["system user assistant", "the river and the stone are at the market"] * 4
CONTEXT_LENGTH = 8192
NUM_LAYERS = 2
HIDDEN_SIZE = 64
FEED_FORWARD_SIZE = 128
NUM_HEADS = 4
NUM_KV_HEADS = 2
WEIGHT_SCALE = 3.0
"""Large against a trained model's, so that answers depend on every token of the prompt."""
CONSTANT = 8.0
"""What the first hidden dimension always holds in a model that prefers some tokens."""


def build_tiny_gguf(
    folder: Path,
    *,
    chat_template: str | None = CHAT_TEMPLATE,
    further_specials: Sequence[str] = (),
    preferred: Mapping[str, float] | None = None,
) -> Path:
    """Write `tiny.gguf` into `folder`: 2 layers, hidden size 64, 8192 tokens of context, Q8_0.

    A greedy answer never ends by itself; a sampled one does, sooner or later. further_specials:
    more control tokens; preferred: tokens, and how much likelier each is wherever it may stand.
    """
    file = folder / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_block_count(NUM_LAYERS)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(HIDDEN_SIZE)
    writer.add_feed_forward_length(FEED_FORWARD_SIZE)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN_SIZE // NUM_HEADS)
    tokens = _add_tokenizer(writer, [*SPECIAL_TOKENS, *further_specials])
    writer.add_vocab_size(len(tokens))
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    weights = _random_weights(len(tokens))
    if preferred is not None:
        _prefer(
            weights,
            {number: preferred[token] for number, token in enumerate(tokens) if token in preferred},
        )
    for name, weight in weights.items():
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
        else:
            writer.add_tensor(name, gguf.quantize(weight, QUANTIZATION), raw_dtype=QUANTIZATION)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: gguf.GGUFWriter, specials: list[str]) -> list[str]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in specials else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END_TOKEN)
    writer.add_add_bos_token(False)
    return tokens


def _prefer(weights: dict[str, np.ndarray], preferred: Mapping[int, float]) -> None:
    """A dimension that no layer changes serves the head as a constant to weigh."""
    weights["token_embd.weight"][:, 0] = CONSTANT
    weights["output.weight"][:, 0] = 0.0
    for layer in range(NUM_LAYERS):
        for name in ("attn_output", "ffn_down"):
            weights[f"blk.{layer}.{name}.weight"][0] = 0.0
    for token, much in preferred.items():
        weights["output.weight"][token, 0] = much


def _random_weights(num_tokens: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    kv_size = HIDDEN_SIZE // NUM_HEADS * NUM_KV_HEADS

    def matrix(rows: int, columns: int, scale: float = WEIGHT_SCALE) -> np.ndarray:
        values = random.standard_normal((rows, columns), dtype=np.float32)
        return values * np.float32(scale / np.sqrt(columns))

    ones = np.ones(HIDDEN_SIZE, dtype=np.float32)
    output = matrix(num_tokens, HIDDEN_SIZE, 1.0)
    output[: len(SPECIAL_TOKENS)] = 0.0
    weights = {
        "token_embd.weight": matrix(num_tokens, HIDDEN_SIZE, np.sqrt(HIDDEN_SIZE)),
        "output_norm.weight": ones,
        "output.weight": output,
    }
    for layer in range(NUM_LAYERS):
        weights |= {
            f"blk.{layer}.attn_norm.weight": ones,
            f"blk.{layer}.attn_q.weight": matrix(HIDDEN_SIZE, HIDDEN_SIZE),
            f"blk.{layer}.attn_k.weight": matrix(kv_size, HIDDEN_SIZE),
            f"blk.{layer}.attn_v.weight": matrix(kv_size, HIDDEN_SIZE),
            f"blk.{layer}.attn_output.weight": matrix(HIDDEN_SIZE, HIDDEN_SIZE),
            f"blk.{layer}.ffn_norm.weight": ones,
            f"blk.{layer}.ffn_gate.weight": matrix(FEED_FORWARD_SIZE, HIDDEN_SIZE),
            f"blk.{layer}.ffn_up.weight": matrix(FEED_FORWARD_SIZE, HIDDEN_SIZE),
            f"blk.{layer}.ffn_down.weight": matrix(HIDDEN_SIZE, FEED_FORWARD_SIZE),
        }
    return weights
