"""Real commands: NL2Bash's 12,607."""

import itertools
import os
import random
from collections import defaultdict
from pathlib import Path

import pytest

from evals.metrics.command import canonical_command, parses, score_command
from evals.metrics.score import Reply
from tests.evals.metrics.questions import question_of

CORPORA = os.environ.get("TUNERY_CORPORA")
pytestmark = [
    pytest.mark.corpora,
    pytest.mark.skipif(not CORPORA, reason="TUNERY_CORPORA does not name the corpora's folder"),
]
# Forms that commands of different words share, each looked at: they differ in white space,
# comments, quotes that change nothing, backquotes, and the order or spelling of options.
NUM_FORMS = 10_506
NUM_NOT_PARSED = 119


@pytest.fixture(scope="module")
def commands() -> list[str]:
    path = Path(CORPORA or "") / "nl2bash.cm"
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def test_nearly_all_are_compared_by_their_structure(commands: list[str]) -> None:
    assert len(commands) == 12_607
    assert sum(not parses(command) for command in commands) == NUM_NOT_PARSED


def test_every_command_equals_itself(commands: list[str]) -> None:
    for command in commands:
        assert score_command(Reply(f"```bash\n{command}\n```"), question_of(command)).value == 1


def test_random_pairs_of_different_commands_are_not_equal(commands: list[str]) -> None:
    distinct = sorted({" ".join(command.split()) for command in commands})
    draw = random.Random(17)
    for _ in range(500):
        first, second = draw.sample(distinct, 2)
        assert score_command(Reply(first), question_of(second)).value == 0, (first, second)


def test_no_two_commands_became_equal_that_were_not_looked_at(commands: list[str]) -> None:
    spellings = defaultdict(set)
    for command in commands:
        spellings[canonical_command(command)].add(command.strip())
    assert len(spellings) == NUM_FORMS


def test_neighbours_that_differ_in_one_letter_are_not_equal(commands: list[str]) -> None:
    by_length = sorted(set(map(str.strip, commands)), key=lambda one: (len(one), one))
    for first, second in itertools.pairwise(by_length):
        differing = [pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]]
        if len(first) == len(second) and len(differing) == 1 and "".join(differing[0]).isalnum():
            assert canonical_command(first) != canonical_command(second)
