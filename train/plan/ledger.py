"""What is in memory while a training step goes forward and back, from who keeps which tensor.

Autograd frees a tensor when the last operation that kept it has gone backward, and Python when its
last reader has run. Played through for all operations of a step, this gives the peak and its parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Moment(NamedTuple):
    """Bytes that exist at one instant, by part."""

    activations: float = 0
    dequantized: float = 0
    loss: float = 0
    gradients: float = 0

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self)

    def plus(self, other: "Moment") -> "Moment":
        """Both at the same time."""
        return Moment(*(a + b for a, b in zip(self, other, strict=True)))


NOTHING = Moment()


@dataclass(frozen=True)
class Operation:
    """One row of the table of who keeps what.

    reads: the tensors that it computes from; makes, size: its result and the bytes of it (0 for a
    view); keeps: tensors kept for its backward pass, and own: bytes kept that nobody else sees.

    forward: what exists for moments of the forward pass, beside the result, what is kept and what
    others hold. backward: the same for the backward pass, with the gradients of `makes` and `reads`
    counted in, since their lives overlap in part only. passes_on: those of `reads` that get the
    very gradient tensor of `makes`. holds: tensors that live through it by a reference alone.

    gradients: bytes of the gradients of its trained weights; starts: its result needs a gradient
    whatever it was computed from. What needs none does not go backward and keeps nothing.
    """

    name: str
    reads: tuple[str, ...]
    makes: str
    size: float
    keeps: tuple[str, ...] = ()
    own: Moment = NOTHING
    forward: tuple[Moment, ...] = ()
    backward: tuple[Moment, ...] = ()
    passes_on: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    gradients: float = 0
    starts: bool = False


class Peak(NamedTuple):
    """The largest moment so far, and the operation that it was in."""

    moment: Moment
    operation: str

    def or_larger(self, moment: Moment, operation: str) -> "Peak":
        """The larger one."""
        return Peak(moment, operation) if moment.total > self.moment.total else self


class Trace(NamedTuple):
    """Peaks of the two passes. Bytes of what was there before the first operation are left out."""

    forward: Peak
    backward: Peak

    @property
    def peak(self) -> Peak:
        """The larger one."""
        return self.forward.or_larger(*self.backward)


@dataclass
class _GradientTensor:
    size: float
    num_owners: int


@dataclass
class _Tape:
    operations: Sequence[Operation]
    sizes: dict[str, float]
    trained: set[str]
    live: float = 0
    kept: Moment = NOTHING
    gradients: float = 0
    pending: dict[str, _GradientTensor] = field(default_factory=dict)


def trace(
    operations: Sequence[Operation],
    given: Mapping[str, bool],
    *,
    keeping: bool = True,
    accumulating: bool = False,
) -> Trace:
    """Play the operations forward and back.

    given: tensors that are there before, and whether each needs a gradient; keeping: without it, as
    in the first pass of a checkpointed layer, nothing is kept and nothing goes back; accumulating:
    the gradients of the trained weights are there before, so none are made.
    """
    trained = {name for name, needs_gradient in given.items() if needs_gradient}
    tape = _Tape(operations, dict.fromkeys(given, 0.0), trained)
    for operation in operations:
        tape.sizes[operation.makes] = operation.size
        trains = operation.gradients or operation.starts
        if trains or trained.intersection(operation.reads):
            trained.add(operation.makes)
    forward = _go_forward(tape, keeping=keeping)
    if not keeping:
        return Trace(forward, Peak(NOTHING, ""))
    return Trace(forward, _go_backward(tape, accumulating=accumulating))


def _go_forward(tape: _Tape, *, keeping: bool) -> Peak:
    last_use: dict[str, int] = {}
    kept: set[str] = set()
    for number, operation in enumerate(tape.operations):
        last_use |= dict.fromkeys((*operation.reads, *operation.holds), number)
        last_use.setdefault(operation.makes, number)
        if keeping and operation.makes in tape.trained:
            kept.update(operation.keeps)
    dying: dict[int, list[str]] = {}
    for name, number in last_use.items():
        dying.setdefault(number, []).append(name)
    peak = Peak(NOTHING, "")
    for number, operation in enumerate(tape.operations):
        tape.live += operation.size
        now = tape.kept.plus(Moment(activations=tape.live)).plus(operation.own)
        for moment in operation.forward or (NOTHING,):
            peak = peak.or_larger(now.plus(moment), operation.name)
        if keeping and operation.makes in tape.trained:
            tape.kept = tape.kept.plus(operation.own)
        for name in dying.get(number, ()):
            # The result of the last operation is what the step is about: it lives on.
            if name not in kept and number < len(tape.operations) - 1:
                tape.live -= tape.sizes[name]
    return peak


def _go_backward(tape: _Tape, *, accumulating: bool) -> Peak:
    releases = _releases(tape)
    # What the forward pass left behind: kept tensors alone.
    tape.live = sum(tape.sizes[name] for names in releases.values() for name in names)
    result = tape.operations[-1].makes
    tape.pending[result] = _GradientTensor(tape.sizes[result], 1)
    peak = Peak(NOTHING, "")
    for number in range(len(tape.operations) - 1, -1, -1):
        operation = tape.operations[number]
        if operation.makes not in tape.trained:
            continue
        incoming = tape.pending.pop(operation.makes)
        incoming.num_owners -= 1
        around = _around(tape)
        # A gradient that others wait for too is around, and in the moments once more.
        shared = Moment(activations=-incoming.size if incoming.num_owners else 0)
        for moment in _backward_moments(operation, tape):
            peak = peak.or_larger(around.plus(moment).plus(shared), operation.name)
        if not accumulating:
            tape.gradients += operation.gradients
        tape.kept = tape.kept.plus(Moment(*(-size for size in operation.own)))
        tape.live -= sum(tape.sizes[name] for name in releases.get(number, ()))
        for name in operation.reads:
            if name in tape.trained:
                summing = _hand_on(tape, name, incoming, passes_on=name in operation.passes_on)
                peak = peak.or_larger(_around(tape).plus(Moment(summing)), operation.name)
    return peak


def _around(tape: _Tape) -> Moment:
    """What is there between two operations of the backward pass."""
    waiting = {id(one): one.size for one in tape.pending.values()}
    live = tape.live + sum(waiting.values())
    return tape.kept.plus(Moment(activations=live, gradients=tape.gradients))


def _releases(tape: _Tape) -> dict[int, list[str]]:
    """The tensors that go when an operation has gone backward: the first that keeps them."""
    first_keeper: dict[str, int] = {}
    for number, operation in enumerate(tape.operations):
        if operation.makes in tape.trained:
            for name in operation.keeps:
                first_keeper.setdefault(name, number)
    released: dict[int, list[str]] = {}
    for name, number in first_keeper.items():
        released.setdefault(number, []).append(name)
    return released


def _backward_moments(operation: Operation, tape: _Tape) -> tuple[Moment, ...]:
    if operation.backward:
        return operation.backward
    made = sum(tape.sizes[name] for name in operation.reads if name not in operation.passes_on)
    return (Moment(activations=operation.size + made),)


def _hand_on(tape: _Tape, name: str, incoming: _GradientTensor, *, passes_on: bool) -> float:
    """Give `name` its gradient; bytes that are there beside it while two are summed to a third."""
    size = tape.sizes[name]
    first = tape.pending.get(name)
    if first is None:
        if passes_on:
            incoming.num_owners += 1
        tape.pending[name] = incoming if passes_on else _GradientTensor(size, 1)
        return 0
    first.num_owners -= 1
    tape.pending[name] = _GradientTensor(size, 1)
    return (0 if first.num_owners else size) + size
