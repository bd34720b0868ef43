"""Who keeps what in a whole training step: the layers, checkpointed or not, and head and loss.

As of torch 2.13 and trl 1.16.
"""

from collections.abc import Iterator
from dataclasses import replace

from configs.schema import TrainConfig
from train.plan.layer_operations import layer_operations, rms_norm
from train.plan.ledger import Moment, Operation, trace
from train.plan.step import BF16, FP32, INT64, Step

# Logits of one tile of the head on a CPU, as in train/head_loss.py.
TILE_LOGITS = 2**24
# Tokens and words of one tile of the head on CUDA, as in trl's chunked_logprob.py and utils.py.
TILE_TOKENS, TILE_WORDS = 4096, 32_768
# Checkpoints on their way to host memory: trl keeps as many in the forward pass; in the backward
# pass there are the one in use and the one used before.
OFFLOADING_FORWARD, OFFLOADING_BACKWARD = 5, 2


def step_operations(step: Step) -> Iterator[Operation]:
    """The whole step. Given before it: nothing."""
    model, tokens = step.architecture, step.batch.num_tokens
    hidden = BF16 * tokens * model.hidden
    checkpointing = step.train.gradient_checkpointing
    # Cosines and sines, and token ids, labels and positions live as long as the step.
    inputs = BF16 * 2 * tokens * model.head_dim + 4 * INT64 * tokens
    yield Operation("inputs", (), "inputs", inputs)
    # A checkpoint's input has to need a gradient, so that its layer gets one.
    yield Operation("embedding", (), "x0", hidden, starts=checkpointing)
    layer = list(layer_operations(step, x="x", y="y"))
    checkpointed = _checkpointed(step, layer) if checkpointing else None
    for number in range(model.num_layers):
        x, y = f"x{number}", f"x{number + 1}"
        if checkpointed is None:
            yield from layer_operations(step, x=x, y=y)
        else:
            keeps = tuple(x if name == "x" else name for name in checkpointed.keeps)
            yield replace(checkpointed, reads=(x,), makes=y, keeps=keeps)
    last = f"x{model.num_layers}"
    yield rms_norm("final norm", last, "states", rows=tokens, width=model.hidden)
    yield from _head(step)


def _checkpointed(step: Step, layer: list[Operation]) -> Operation:
    """The layer from "x" to "y", which keeps its input alone and goes forward again to go back."""
    hidden = BF16 * step.batch.num_tokens * step.architecture.hidden
    given = {"x": True, "inputs": False}
    first = trace(layer, given, keeping=False).forward.moment
    again = trace(layer, given, accumulating=is_accumulating(step.train))
    # Meanwhile the gradient of the result waits.
    second = again.forward.moment.plus(Moment(hidden)), again.backward.moment
    largest = again.forward._replace(moment=second[0]).or_larger(*again.backward)
    offloads = step.train.offload_activations
    there = Moment(OFFLOADING_FORWARD * hidden if offloads else 0)
    back = Moment(OFFLOADING_BACKWARD * hidden if offloads else 0)
    return Operation(
        f"layer, {largest.operation}",
        ("x",),
        "y",
        hidden,
        keeps=("inputs",) if offloads else ("inputs", "x"),
        forward=(first.plus(there),),
        backward=tuple(moment.plus(back) for moment in second),
        gradients=sum(operation.gradients for operation in layer),
    )


def is_accumulating(train: TrainConfig) -> bool:
    """Whether an optimizer step has several micro-batches, whose gradients then wait in memory."""
    return train.batch_rows > train.micro_batch_rows


def _head(step: Step) -> Iterator[Operation]:
    """Supervised positions of the final states, then head and loss over them in tiles."""
    model, batch = step.architecture, step.batch
    picked = BF16 * batch.num_supervised * model.hidden
    states = BF16 * batch.num_tokens * model.hidden
    yield Operation("pick", ("states",), "picked", picked, backward=(Moment(picked + 2 * states),))
    yield _head_on_cuda(step) if step.on_cuda else _head_on_cpu(step)


def _head_on_cuda(step: Step) -> Operation:
    """trl's ChunkedLogProbFunction: one bf16 tile of logits, its gradient written into it.

    A dozen fp32 numbers a position; the gradient of the states summed in fp32.
    """
    model, positions = step.architecture, step.batch.num_supervised
    tile = BF16 * min(positions, TILE_TOKENS) * TILE_WORDS
    states = positions * model.hidden
    numbers = 12 * FP32 * positions
    return Operation(
        "head and loss",
        ("picked",),
        "loss",
        FP32,
        keeps=("picked",),
        forward=(Moment(loss=tile + numbers),),
        backward=(
            Moment(FP32 * states, loss=tile + numbers),
            Moment((FP32 + BF16) * states, loss=tile + numbers),
        ),
        holds=("states", "inputs"),
    )


def _head_on_cpu(step: Step) -> Operation:
    """train/head_loss.py: cross-entropy of a tile of positions at a time.

    Forward: bf16 logits, for which a CPU reorders a copy of the head's weight, then fp32 ones and
    their log-probabilities. Backward: log-probabilities and two gradients as large.
    """
    model, positions = step.architecture, step.batch.num_supervised
    logits = min(positions, max(1, TILE_LOGITS // model.vocabulary)) * model.vocabulary
    return Operation(
        "head and loss",
        ("picked",),
        "loss",
        FP32,
        keeps=("picked",),
        forward=(
            Moment(loss=BF16 * logits + BF16 * model.num_embedding_weights),
            Moment(loss=2 * FP32 * logits),
        ),
        backward=(Moment(BF16 * positions * model.hidden, loss=3 * FP32 * logits),),
        holds=("states", "inputs"),
    )
