"""Who keeps what in a decoder layer, read off the libraries' sources.

As of transformers 5.17 (modeling_mistral.py; the other dense decoders are written alike), peft 0.21
(lora/bnb.py), bitsandbytes 0.50 (autograd/_functions.py) and torch 2.13. Hidden states are bf16.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from train.plan.architecture import Linear
from train.plan.ledger import Moment, Operation, trace
from train.plan.step import BF16, FP32, SHORT_TOKENS, Batch, Step

# From a tensor's name within the layer to its name within the step.
Names = Callable[[str], str]
# Weights that share a scale in NF4, whose scales are dequantized with them (bitsandbytes).
NF4_BLOCK = 64


def layer_operations(step: Step, *, x: str, y: str) -> Iterator[Operation]:
    """A decoder layer from hidden states `x` to hidden states `y`."""
    model, tokens = step.architecture, step.batch.num_tokens
    hidden = BF16 * tokens * model.hidden

    def named(tensor: str) -> str:
        return f"{y}.{tensor}"

    yield rms_norm("norm", x, named("h1"), rows=tokens, width=model.hidden)
    for name in ("q", "k", "v"):
        yield from _linear(step, f"{name}_proj", named("h1"), named(name))
    yield from _rotations(step, named)
    yield _attention(step, named)
    yield from _linear(step, "o_proj", named("attended"), named("a"))
    added = (x, named("a"))
    yield Operation("add", added, named("x"), hidden, passes_on=added)
    yield rms_norm("norm", named("x"), named("h2"), rows=tokens, width=model.hidden)
    tile = step.train.mlp_tile_tokens
    if tile is not None and tile < tokens:
        yield _tiled_mlp(step, tile, x=named("h2"), y=named("m"))
    else:
        yield from _mlp(step, x=named("h2"), y=named("m"))
    added = (named("x"), named("m"))
    yield Operation("add", added, y, hidden, passes_on=added)


def rms_norm(name: str, x: str, y: str, *, rows: int, width: int) -> Operation:
    """RMSNorm in fp32. Kept: the input in fp32 and a number a row.

    Forward: the squares, or the normalized states and they once more in bf16. Backward: five fp32
    tensors when the square is differentiated.
    """
    numbers = rows * width
    return Operation(
        name,
        (x,),
        y,
        BF16 * numbers,
        own=Moment(FP32 * numbers + FP32 * rows),
        forward=(Moment((FP32 + BF16) * numbers),),
        backward=(Moment(5 * FP32 * numbers),),
    )


def _linear(step: Step, name: str, x: str, y: str) -> Iterator[Operation]:
    """A frozen linear layer, in 4 bits or not, and LoRA beside it.

    The frozen product keeps nothing: its gradient needs the weight alone. Its result is copied.
    """
    linear, tokens = step.architecture.linears[name], step.batch.num_tokens
    inputs, outputs = BF16 * tokens * linear.inputs, BF16 * tokens * linear.outputs
    frozen, weight = f"{y}.frozen", _weight(step, linear)
    yield Operation(
        name,
        (x,),
        frozen,
        outputs,
        forward=(Moment(dequantized=weight), Moment(outputs)),
        backward=(Moment(outputs + inputs, dequantized=weight),),
    )
    yield _lora(step, linear, (x, frozen), y)


def _lora(step: Step, linear: Linear, reads: tuple[str, str], y: str) -> Operation:
    """B(A(x)) scaled and added. Kept: its input, and what lies between A and B.

    On CUDA autocast works with a bf16 copy of an fp32 adapter, and keeps that; on a CPU the input
    is cast to fp32, and that copy is kept.
    """
    lora, tokens = step.train.lora, step.batch.num_tokens
    casts = step.adapter_bytes == FP32 and not step.on_cuda
    number = FP32 if casts else BF16
    inputs, outputs = tokens * linear.inputs, tokens * linear.outputs
    own = number * tokens * lora.rank
    if lora.dropout:
        # The input after dropout, and the mask: a byte on CUDA, a factor on a CPU.
        own += (number + (1 if step.on_cuda else number)) * inputs
    elif casts:
        own += FP32 * inputs
    if step.adapter_bytes == FP32 and step.on_cuda:
        own += BF16 * lora.rank * (linear.inputs + linear.outputs)
    operation = Operation(
        linear.name,
        reads,
        y,
        BF16 * outputs,
        keeps=() if casts or lora.dropout else reads[:1],
        own=Moment(own),
        # LoRA's output before and after it is scaled.
        forward=(Moment(number * outputs),),
        # The gradients of these; the gradient of the input, in its own format and in bf16.
        backward=(
            Moment((BF16 + (2 * number if casts else BF16)) * outputs),
            Moment(BF16 * outputs + (number + (BF16 if casts else 0)) * inputs),
        ),
        passes_on=reads[1:],
        gradients=num_trained_bytes(step, linear),
    )
    return _with_magnitudes(step, linear, operation) if lora.dora else operation


def _with_magnitudes(step: Step, linear: Linear, lora: Operation) -> Operation:
    """DoRA (peft/tuners/lora/dora.py): the sum of both outputs scaled by trained fp32 magnitudes.

    Both outputs are kept, since the magnitudes' gradient needs them, and multiplied in fp32. The
    norms of the rows of W + BA take an identity matrix to make BA with, BA scaled, W and the sum.
    """
    outputs = step.batch.num_tokens * linear.outputs
    matrices = step.adapter_bytes * (linear.inputs**2 + 4 * linear.size)
    return replace(
        lora,
        own=lora.own.plus(Moment(2 * BF16 * outputs)),
        forward=(Moment(dequantized=matrices), Moment(3 * FP32 * outputs)),
        # Going back: the gradient in bf16, in fp32, scaled, and times an output, which is in fp32.
        backward=(Moment((BF16 + 5 * FP32) * outputs), *lora.backward),
        passes_on=(),
    )


def _weight(step: Step, linear: Linear) -> float:
    """A frozen weight in bf16 with its scales in fp32; a CPU's product reorders a copy of it."""
    copies = 0 if step.on_cuda else BF16 * linear.size
    if step.train.quantization == "none":
        return copies
    return BF16 * linear.size + FP32 * linear.size / NF4_BLOCK + copies


def num_trained_bytes(step: Step, linear: Linear) -> float:
    """Bytes of the trained weights of one linear layer; DoRA's magnitudes are fp32."""
    lora = step.train.lora
    magnitudes = FP32 * linear.outputs if lora.dora else 0
    return step.adapter_bytes * lora.rank * (linear.inputs + linear.outputs) + magnitudes


def _rotations(step: Step, named: Names) -> Iterator[Operation]:
    """Rotary positions of query and key, normalized by head first where the model does that.

    Nothing is kept but the cosines and sines that all layers share.
    """
    model, tokens = step.architecture, step.batch.num_tokens
    for name, heads in (("q", model.num_heads), ("k", model.num_kv_heads)):
        source, rows = named(name), tokens * heads
        size = BF16 * rows * model.head_dim
        if model.has_head_norms:
            yield rms_norm("head norm", source, f"{source}.n", rows=rows, width=model.head_dim)
            source += ".n"
        yield Operation(
            "rotation",
            (source,),
            named(f"{name}.r"),
            size,
            keeps=("inputs",),
            forward=(Moment(2 * size),),
            backward=(Moment(4 * size),),
        )


def _attention(step: Step, named: Names) -> Operation:
    """Causal attention within documents."""
    reads = (named("q.r"), named("k.r"), named("v"))
    result = Operation(
        "attention",
        reads,
        named("attended"),
        BF16 * step.batch.num_tokens * step.architecture.query,
    )
    return _flash_attention(step, result) if step.on_cuda else _cpu_attention(step, result)


def _flash_attention(step: Step, result: Operation) -> Operation:
    """Over grouped heads: keeps query, key, value, result and a log-sum a head and token.

    Going back, a gradient of the query in fp32, and those of key and value for all heads.
    """
    query = result.size
    key_value = BF16 * step.batch.num_tokens * step.architecture.key_value
    log_sums = FP32 * step.batch.num_tokens * step.architecture.num_heads
    gradients = 2 * query + 2 * key_value
    return replace(
        result,
        keeps=(*result.reads, result.makes),
        own=Moment(log_sums),
        backward=(Moment(gradients + 2 * query + 2 * query + log_sums),),
    )


def _cpu_attention(step: Step, result: Operation) -> Operation:
    """Key and value are repeated for all heads.

    A long document goes through flash attention, whose results are joined in one more tensor; a
    short one through matrix products, which keep its weights in fp32 and bf16, heads x tokens x
    tokens, and a mask.
    """
    query, batch, heads = result.size, step.batch, step.architecture.num_heads
    if batch.document > SHORT_TOKENS:
        kept = 3 * query + FP32 * batch.num_tokens * heads
        going_back = 7 * query
    else:
        pairs = batch.num_tokens * batch.document
        kept = 2 * query + (FP32 + BF16) * heads * pairs + pairs
        going_back = 4 * query
    return replace(
        result,
        keeps=result.reads[:1],
        own=Moment(kept),
        forward=(Moment(query),),
        backward=(Moment(going_back),),
    )


def _mlp(step: Step, *, x: str, y: str) -> Iterator[Operation]:
    """down(silu(gate(x)) * up(x)): four wide tensors are kept."""
    wide = BF16 * step.batch.num_tokens * step.architecture.mlp
    gate, up, activated, product = (f"{y}.{name}" for name in ("gate", "up", "act", "product"))
    yield from _linear(step, "gate_proj", x, gate)
    yield Operation("silu", (gate,), activated, wide, keeps=(gate,))
    yield from _linear(step, "up_proj", x, up)
    yield Operation("product", (activated, up), product, wide, keeps=(activated, up))
    yield from _linear(step, "down_proj", product, y)


def _tiled_mlp(step: Step, tile: int, *, x: str, y: str) -> Operation:
    """train/tiled_mlp.py: the input is kept, and both passes hold the wide tensors of one tile.

    Forward: the tiles' results, and those joined. Backward: the adapter's gradients summed in fp32.
    """
    hidden = BF16 * step.batch.num_tokens * step.architecture.hidden
    small = Step(step.architecture, step.train, Batch(tile, 0, tile), step.device)
    inner = list(_mlp(small, x="x", y="y"))
    first = trace(inner, {"x": True}, keeping=False).forward.moment
    second = trace(inner, {"x": True}).peak.moment
    weights = [step.architecture.linears[name] for name in ("gate_proj", "up_proj", "down_proj")]
    gradients = sum(num_trained_bytes(step, linear) for linear in weights)
    sums = gradients * FP32 / step.adapter_bytes
    return Operation(
        "tiled MLP",
        (x,),
        y,
        hidden,
        keeps=(x,),
        forward=(Moment(hidden), first),
        backward=(second.plus(Moment(2 * hidden + sums)),),
        gradients=gradients,
    )
