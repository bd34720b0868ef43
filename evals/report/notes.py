"""What a reader has to know of single tasks beside their figures, as sentences."""

from typing import NamedTuple

from evals.report.words import counted, points, score
from evals.results import TaskResult, VoteResult


class Note(NamedTuple):
    """A sentence about a task; is_warning: it weakens what the figures say."""

    is_warning: bool
    text: str


def side_notes(task: TaskResult) -> list[Note]:
    """What else to know of a task: settling, known questions, answers cut off, other prompts."""
    notes: list[Note] = []
    if settle := to_settle(task):
        notes.append(Note(False, settle))
    for side in (task["baseline"], task["variant"]):
        if side["num_cut"]:
            told = f"{counted(side['num_cut'], 'answer')} of {side['name']} ended at the limit of "
            notes.append(Note(True, f"{told}tokens and may have been cut."))
    if task["num_known"] and task["clean"] is None:
        notes.append(Note(True, _only_known(task)))
    notes += [Note(False, told) for told in other_prompts(task)]
    return [*notes, *judge_notes(task)]


def other_prompts(task: TaskResult) -> list[str]:
    """The baseline's prompts that do not count, with what they scored."""
    baseline = task["baseline"]
    return [
        f"{baseline['name']} with its other prompt ({one['prompt']}): {score(one)}."
        for one in baseline["prompts"]
        if one["prompt"] != baseline["prompt"]
    ]


def judge_notes(task: TaskResult) -> list[Note]:
    """What to know of the judge: who it was, and what may have misled it."""
    judge = task["judge"]
    if judge is None:
        return []
    return [
        *(Note(False, told) for told in judge.get("facts", ())),
        *(Note(True, told) for told in judge.get("warnings", ())),
    ]


def vote_notes(one: VoteResult) -> list[Note]:
    """What to know of the votes on two models beside their numbers."""
    days = one["first_day"]
    if one["last_day"] != one["first_day"]:
        days = f"{days} to {one['last_day']}"
    told = (
        f"{counted(one['num_votes'], 'vote')} on {counted(one['num_prompts'], 'prompt')} by "
        f"{counted(one['num_voters'], 'voter')}, {days}; {one['model']} stood first in "
        f"{one['num_shown_first']:,}."
    )
    method = [f"{one['interval_method']}; {one['test_method']}."] if one["interval_method"] else []
    return [
        Note(False, told),
        *(Note(False, name) for name in method),
        *(Note(True, warning) for warning in one["warnings"]),
    ]


def to_settle(task: TaskResult) -> str | None:
    """How many questions would decide an inconclusive task; None where it is decided."""
    if task["verdict"] != "inconclusive":
        return None
    num = task["num_samples_to_settle"]
    if num is None:
        no_number = (
            "No difference was seen, so no number of questions can be named that settles it."
        )
        return no_number if points(task["delta"]) == "0.0" else None
    return (
        f"About {num:,} questions would probably settle it, if the difference seen is the true "
        f"one; {task['num_samples']:,} were asked."
    )


def _only_known(task: TaskResult) -> str:
    return (
        f"{counted(task['num_known'], 'question')} of {task['num_samples']:,} are given away by "
        "the rows to train on; too few are left for a comparison without them."
    )
