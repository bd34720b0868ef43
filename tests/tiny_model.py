"""A whole chat model that is built in a second, so that tests need neither network nor cache.

It has the parts that the real ones have (ChatML template, byte-level BPE, grouped-query attention,
tied embeddings, bf16 safetensors) and is read by the same library calls; its answers are noise.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NUM_TOKENS = 392

# SmolLM2's own template: it marks no assistant turns, so the training template has to be found.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# What the tokenizer's merges are learned from: frequent words become one token, others stay bytes.
# Blanks before digits are a token of their own, which a wrongly rebuilt tokenizer splits otherwise.
CORPUS = [
    "1  2  3  4  5",
    "system user assistant",
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "Which colour is the sky? The sky is blue.",
    "Which colour is the grass? The grass is green.",
    "Which number is it? The number is 12 and the answer is 345.",
    "Name the licence and its category.",
    "Which chapter does this diagnosis belong to?",
] * 4


def build_tiny_checkpoint(folder: Path) -> Path:
    """Write a random Llama and its tokenizer into `folder` in the hub's layout; returns `folder`.

    2 layers, hidden size 64, 4 heads over 2 key-value heads; equal bytes at every call. Special
    tokens as SmolLM2 has them: `<|im_start|>` begins (id 1), `<|im_end|>` ends and pads (id 2).
    """
    tokenizer = build_tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over `CORPUS`: every text can be encoded, and decoded without loss."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
