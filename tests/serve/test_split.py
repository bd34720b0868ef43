from hypothesis import given
from hypothesis import strategies as st

from configs.serve_schema import TargetName
from serve.split import AFTER, BEFORE, choose_target, place_of

TARGETS: tuple[TargetName, ...] = ("variant", "base", "hosted")
CLIENTS = [f"client-{number}" for number in range(4000)]

percents = st.floats(min_value=0.1, max_value=99.9)
targets = st.sampled_from(TARGETS)


def answers(to: TargetName, split: dict[TargetName, float], route: str = "m") -> list[TargetName]:
    return [choose_target(client, route=route, to=to, split=split) for client in CLIENTS]


@given(route=st.text(max_size=20))
def test_each_share_is_had_within_four_standard_deviations(route: str) -> None:
    split: dict[TargetName, float] = {"base": 5.0, "hosted": 30.0}
    chosen = answers("variant", split, route)
    for target, percent in {**split, "variant": 65.0}.items():
        share = percent / 100
        deviation = (share * (1 - share) / len(CLIENTS)) ** 0.5
        # Hypothesis tries a hundred routes: six deviations are for all of them together.
        assert abs(chosen.count(target) / len(CLIENTS) - share) < 6 * deviation


@given(client=st.text(), route=st.text(), to=targets, data=st.data())
def test_a_client_meets_the_same_target_each_time(
    client: str, route: str, to: TargetName, data: st.DataObject
) -> None:
    others = [target for target in TARGETS if target != to]
    first = data.draw(percents)
    split: dict[TargetName, float] = {others[0]: first, others[1]: 100 - first}
    assert choose_target(client, route=route, to=to, split=split) == choose_target(
        client, route=route, to=to, split=dict(reversed(split.items()))
    )
    assert 0 <= place_of(client, route=route) < 100


def test_who_answers_does_not_change_from_version_to_version() -> None:
    assert round(place_of("team-a", route="mistral-small-2503"), 6) == 29.574977
    assert place_of("b", route="a") != place_of("", route="ab")


@given(to=targets, data=st.data())
def test_a_larger_share_moves_clients_from_the_rest_to_it_and_nobody_else(
    to: TargetName, data: st.DataObject
) -> None:
    grown, other = data.draw(st.permutations([target for target in TARGETS if target != to]))
    before, after = sorted([data.draw(percents), data.draw(percents)])
    others_share = data.draw(st.floats(min_value=0, max_value=100 - after))
    split: dict[TargetName, float] = {other: others_share}
    moves = {
        (old, new)
        for old, new in zip(
            answers(to, {**split, grown: before}), answers(to, {**split, grown: after}), strict=True
        )
        if old != new
    }
    assert moves <= {(to, grown)}


@given(to=targets, data=st.data())
def test_taking_over_the_rest_moves_nobody_whose_share_stays(
    to: TargetName, data: st.DataObject
) -> None:
    other = data.draw(st.sampled_from([target for target in TARGETS if target != to]))
    percent = data.draw(st.integers(min_value=1, max_value=99))
    assert answers(to, {other: float(percent)}) == answers(other, {to: float(100 - percent)})


def test_a_share_of_all_leaves_nobody_to_the_rest() -> None:
    assert set(answers("variant", {"hosted": 60.0, "base": 40.0})) == {"hosted", "base"}
    assert set(answers("variant", {})) == {"variant"}


def test_the_ends_are_dealt_round_a_circle() -> None:
    for target in TARGETS:
        assert {target, BEFORE[target], AFTER[target]} == set(TARGETS)


def test_routes_do_not_share_their_first_clients() -> None:
    split: dict[TargetName, float] = {"hosted": 10.0}
    one = {c for c, t in zip(CLIENTS, answers("variant", split, "a"), strict=True) if t == "hosted"}
    two = {c for c, t in zip(CLIENTS, answers("variant", split, "b"), strict=True) if t == "hosted"}
    assert len(one & two) < 80  # by chance 40; all 400 if the route's name did not count
