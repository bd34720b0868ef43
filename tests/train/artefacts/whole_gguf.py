"""Random Llamas as GGUF files of whole numbers, in the sizes that decide on types of tensors."""

from pathlib import Path

import gguf
import numpy as np

from train.artefacts.ggml_kernels import Kind, quantize_rows

NUM_TOKENS = 64
HEAD_DIM = 32


def write_whole_gguf(
    file: Path,
    *,
    kind: gguf.GGMLQuantizationType = Kind.BF16,
    width: int = 256,
    feed_forward: int = 512,
    num_layers: int = 10,
    tied: bool = False,
    architecture: str = "llama",
    num_experts: int = 0,
) -> Path:
    """Write a file without a vocabulary; matrices are of the kind, norms in fp32."""
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("whole")
    writer.add_block_count(num_layers)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(width // HEAD_DIM)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_BF16))
    writer.add_array("tokenizer.ggml.tokens", [f"t{number}é" for number in range(NUM_TOKENS)])
    writer.add_array("tokenizer.ggml.token_type", [1] * NUM_TOKENS)
    if num_experts:
        writer.add_expert_count(num_experts)
    for name, shape in shapes(width, feed_forward, num_layers, tied=tied).items():
        values = np.random.default_rng(len(name)).standard_normal(shape, dtype=np.float32) * 0.02
        if len(shape) == 1 or kind == Kind.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, quantize_rows(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def shapes(
    width: int, feed_forward: int, num_layers: int, *, tied: bool
) -> dict[str, tuple[int, ...]]:
    """Rows, and values of a row, of each tensor; layer 10 stands before layer 2, as on the hub."""
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (NUM_TOKENS, width)}
    if not tied:
        found["output.weight"] = (NUM_TOKENS, width)
    found["output_norm.weight"] = (width,)
    for layer in sorted(range(num_layers), key=str):
        found |= {
            f"blk.{layer}.attn_norm.weight": (width,),
            f"blk.{layer}.attn_q.weight": (width, width),
            f"blk.{layer}.attn_k.weight": (HEAD_DIM, width),
            f"blk.{layer}.attn_v.weight": (HEAD_DIM, width),
            f"blk.{layer}.attn_output.weight": (width, width),
            f"blk.{layer}.ffn_norm.weight": (width,),
            f"blk.{layer}.ffn_gate.weight": (feed_forward, width),
            f"blk.{layer}.ffn_up.weight": (feed_forward, width),
            f"blk.{layer}.ffn_down.weight": (width, feed_forward),
        }
    return found
