"""Who is asked what, how far a run is, and what is left out, over a real host."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.evaluation_schema import EvaluationConfig
from data.conversation import ToolDefinition
from evals.gather import Gathered, Gathering
from evals.sides import Sides, count_questions, of_baseline, of_guards, of_variant
from evals.targets import Target
from evals.task import EvaluationTask
from tests.evals.conftest import chapter_rows, chapter_task, reply
from tests.evals.loopback_host import LoopbackHost, run_host

TOOL: ToolDefinition = {
    "type": "function",
    "function": {"name": "look_up", "description": "", "parameters": {"type": "object"}},
}


def answer(model: str, messages: list[dict[str, str]]) -> str:
    """As `reply`, and something to the question whether the host answers at all."""
    return reply(model, messages) if "term " in messages[-1]["content"] else "Yes."


@pytest.fixture
def host() -> Iterator[LoopbackHost]:
    with run_host(LoopbackHost(reply=answer)) as host:
        yield host


class Asked:
    """A gathering from one host, and how far it said to be."""

    def __init__(self, host: LoopbackHost, folder: Path, *, hosted: bool, base: bool) -> None:
        self.host = host
        self.told: list[tuple[int, int]] = []
        self.gathering = Gathering(
            sides=Sides(
                variant=lambda: self._open("variant"),
                base=(lambda: self._open("base")) if base else None,
                baseline=self._target("hosted") if hosted else None,
            ),
            settings=EvaluationConfig(task="own"),
            log_dir=folder,
            progress=lambda *done: self.told.append(done),
        )

    def __call__(self, *tasks: EvaluationTask) -> Gathered:
        return self.gathering.gather(tasks)

    def _target(self, model: str) -> Target:
        return Target(model, self.host.base_url, model, revision=model)

    def _open(self, model: str) -> AbstractContextManager[Target]:
        return nullcontext(self._target(model))

    def num_asked(self, model: str) -> int:
        return sum(body["model"] == model for body in self.host.requests)


def with_tools(task: EvaluationTask) -> EvaluationTask:
    return replace(task, questions=tuple(replace(one, tools=(TOOL,)) for one in task.questions))


EXAMPLES = tuple(chapter_rows(900, 2))
OWN = chapter_task(0, 10, name="own", examples=EXAMPLES)
FURTHER = chapter_task(100, 6, name="further", role="exploratory", examples=EXAMPLES)
GUARD = chapter_task(200, 4, name="outside", role="guard")


# Each side's share.


def test_the_baseline_is_asked_the_domain_with_both_prompts_and_nothing_else() -> None:
    bare = replace(FURTHER, examples=())
    names = [one.log_name for one in of_baseline([OWN, bare, GUARD])]
    assert names == ["own", "further", "own, 2 examples"]
    assert [one.log_name for one in of_variant([OWN, GUARD])] == ["own", "outside"]
    assert [one.log_name for one in of_guards([OWN, bare, GUARD])] == ["outside"]


def test_every_epoch_is_an_answer() -> None:
    thrice = replace(GUARD, num_epochs=3)
    assert count_questions(of_variant([OWN, thrice])) == 10 + 3 * 4


# How far it is.


@pytest.mark.parametrize("hosted", [True, False])
def test_progress_ends_with_all_that_were_asked(
    host: LoopbackHost, tmp_path: Path, hosted: bool
) -> None:
    asked = Asked(host, tmp_path, hosted=hosted, base=True)
    asked(OWN, FURTHER, GUARD)
    # Of a hosted side's two preflight rounds each is 8 of the own questions.
    num_all = 32 + 20 + (4 + 2 * 8 if hosted else 4)
    assert asked.told[-1] == (num_all, num_all)
    assert asked.told == sorted(asked.told)
    assert {total for _, total in asked.told} == {num_all}


@pytest.mark.parametrize(("hosted", "base"), [(True, True), (True, False), (False, True)])
def test_progress_ends_there_too_where_a_task_is_left_out(
    host: LoopbackHost, tmp_path: Path, hosted: bool, base: bool
) -> None:
    host.capabilities = {"function_calling": False}
    asked = Asked(host, tmp_path, hosted=hosted, base=base)
    tasks = [OWN, with_tools(FURTHER), *([with_tools(GUARD)] if base else [])]
    found = asked(*tasks)
    assert [one["name"] for one in found.not_asked] == [task.name for task in tasks[1:]]
    num_done, num_all = asked.told[-1]
    assert (
        num_done
        == num_all
        == sum(len(answers) for side in found.answers.values() for answers in side.values())
    )


# What is left out, and what is checked.


def test_a_primary_task_that_cannot_be_asked_stops_before_the_first_question(
    host: LoopbackHost, tmp_path: Path
) -> None:
    host.capabilities = {"function_calling": False}
    asked = Asked(host, tmp_path, hosted=False, base=True)
    with pytest.raises(UserError, match=r"rests on 'own', which cannot be asked: .* no place"):
        asked(with_tools(OWN), FURTHER)
    assert not host.requests


def test_the_hosted_side_is_not_asked_what_lies_outside_the_domain(
    host: LoopbackHost, tmp_path: Path
) -> None:
    asked = Asked(host, tmp_path, hosted=True, base=True)
    found = asked(OWN, FURTHER, GUARD)
    # And once, whether it answers at all.
    assert asked.num_asked("hosted") == 32 + 1
    assert asked.num_asked("base") == 4 + 8
    own, further, outside = found.evidence
    assert list(own.baseline) == list(further.baseline) == ["zero-shot", "2 examples"]
    assert (own.baseline_model, outside.baseline_model) == ("hosted", "base")
    assert list(outside.baseline) == ["zero-shot"]


def test_what_both_sides_were_sent_is_checked_for_every_task(
    host: LoopbackHost, tmp_path: Path
) -> None:
    found = Asked(host, tmp_path, hosted=False, base=True)(OWN, FURTHER, GUARD)
    checked = [one.name for one in found.checks if one.name.startswith("same text")]
    assert checked == ["same text: own", "same text: further", "same text: outside"]
    assert all(one.ok for one in found.checks)
    assert [one.detail for one in found.checks if one.name == "adapter"]
