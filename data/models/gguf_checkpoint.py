"""Turn a GGUF file into a plain bf16 checkpoint that transformers and peft take as any other."""

import io
from contextlib import redirect_stderr
from pathlib import Path

import torch
from gguf import GGUFReader
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.quantization_config import GgufConfig

from configs.errors import UserError
from data.cache import disk_error


def convert_gguf(gguf_file: Path, folder: Path) -> None:
    """Write config, bf16 safetensors and tokenizer of `gguf_file` into `folder`.

    The weights are the file's own, dequantized: quality is what the GGUF kept, not more. Errors:
    `UserError` for a tokenizer that cannot be rebuilt and for weights that cannot be written.
    """
    # transformers draws a bar for each tensor it reads, whatever its own verbosity says.
    with redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            gguf_file.parent,
            gguf_file=gguf_file.name,
            dtype=torch.bfloat16,
            # Without `dequantize` the model counts as quantized and cannot be saved.
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
        _restore_tokenizer(tokenizer, GGUFReader(gguf_file))
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:
            raise disk_error(OSError(str(error)), folder) from error
        tokenizer.save_pretrained(folder)


def _restore_tokenizer(tokenizer: PreTrainedTokenizerBase, reader: GGUFReader) -> None:
    """Put back what transformers' GGUF reader loses: pre-tokenizer, decoder, special tokens."""
    pre_tokenizer = str(reader.fields["tokenizer.ggml.pre"].contents())
    backend: Tokenizer = tokenizer.backend_tokenizer
    if pre_tokenizer == "smollm":
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        tokenizer.clean_up_tokenization_spaces = False
    else:
        raise UserError(
            f"GGUF with pre-tokenizer {pre_tokenizer!r}: rebuilding its tokenizer is not supported",
            where=getattr(reader.data, "filename", None),
            remedy="give the model as a hub id or as a checkpoint folder instead",
        )
    for name in ("bos", "eos", "unknown", "padding"):
        field = reader.fields.get(f"tokenizer.ggml.{name}_token_id")
        if field is not None:
            attribute = {"unknown": "unk", "padding": "pad"}.get(name, name)
            token = tokenizer.convert_ids_to_tokens(int(field.contents()))
            setattr(tokenizer, f"{attribute}_token", token)
