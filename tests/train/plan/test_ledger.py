from dataclasses import replace

from train.plan.ledger import Moment, Operation, trace

# x (10, needs a gradient) -> y (100, kept by its maker and by the next) -> z (1).
CHAIN = [
    Operation("widen", ("x",), "y", 100, keeps=("y",), own=Moment(5)),
    Operation("narrow", ("y",), "z", 1, keeps=("y",)),
]


def test_a_tensor_lives_until_the_first_that_keeps_it_has_gone_backward() -> None:
    found = trace(CHAIN, {"x": True})
    # y, what `widen` keeps for itself, and z.
    assert found.forward == (Moment(106), "narrow")
    # While y's gradient is made: y, the 5, and both gradients; then y's is there beside x's.
    assert found.backward.moment == Moment(100 + 5 + 100 + 0 + 1)
    assert found.backward.operation == "narrow"


def test_until_then_it_is_there() -> None:
    slow = [replace(CHAIN[0], backward=(Moment(500),)), CHAIN[1]]
    assert trace(slow, {"x": True}).backward == (Moment(100 + 5 + 500), "widen")


def test_what_needs_no_gradient_keeps_nothing_and_does_not_go_back() -> None:
    found = trace(CHAIN, {"x": False})
    assert found.backward.moment.total == 0
    # Once it has been read, nothing holds y: at most y with `widen`'s own, or y with z.
    assert found.forward == (Moment(105), "widen")


def test_without_keeping_a_tensor_dies_with_its_last_reader() -> None:
    longer = [*CHAIN, Operation("again", ("z",), "u", 50)]
    kept = trace(longer, {"x": True}).forward.moment
    dropped = trace(longer, {"x": True}, keeping=False).forward.moment
    assert kept == Moment(100 + 5 + 1 + 50)
    assert dropped == Moment(105)


def test_a_gradient_that_is_passed_on_is_one_tensor_and_sums_are_a_third() -> None:
    residual = [
        Operation("start", (), "x", 10, starts=True),
        Operation("branch", ("x",), "b", 10),
        Operation("add", ("x", "b"), "y", 10, passes_on=("x", "b")),
    ]
    # The shared gradient, the branch's gradient of x, and their sum.
    assert trace(residual, {}).backward == (Moment(30), "branch")


def test_gradients_of_weights_stay_unless_they_are_there_already() -> None:
    layers = [
        Operation("first", (), "x", 1, gradients=7),
        Operation("second", ("x",), "y", 1, gradients=70, backward=(Moment(3),)),
    ]
    assert trace(layers, {}).backward.moment == Moment(1, gradients=70)
    assert trace(layers, {}, accumulating=True).backward.moment == Moment(3)


def test_a_tensor_is_held_through_an_operation_that_does_not_read_it() -> None:
    steps = [
        Operation("make", (), "states", 100),
        Operation("pick", ("states",), "picked", 10),
        Operation("head", ("picked",), "loss", 1, forward=(Moment(loss=1000),)),
    ]
    held = [*steps[:2], Operation("head", ("picked",), "loss", 1, forward=(Moment(loss=1000),),
                                  holds=("states",))]  # fmt: skip
    assert trace(steps, {}).forward.moment == Moment(11, loss=1000)
    assert trace(held, {}).forward.moment == Moment(111, loss=1000)
