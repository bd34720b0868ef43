"""The rules by which numbers become a verdict, and verdicts a decision; told in the report."""

from collections.abc import Sequence
from typing import NamedTuple

from configs.evaluation_schema import Verdict
from evals.statistics.estimate import Interval


def decide(interval: Interval, p_value: float, *, confidence: float, margin: float) -> Verdict:
    """The verdict's rule: interval and test have to agree before a difference is claimed.

    better: the interval lies above 0 and p < 1 - confidence; worse: the mirror of it; equivalent:
    the interval lies strictly inside ± margin; inconclusive: everything else.
    """
    low, high = interval
    # Rounded, because 1 - 0.95 comes out a little above 0.05.
    significant = p_value < round(1 - confidence, 12)
    if low > 0 and significant:
        return "better"
    if high < 0 and significant:
        return "worse"
    if -margin < low and high < margin:
        return "equivalent"
    return "inconclusive"


def decide_overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict over the primary tasks, whose p-values were adjusted for their number.

    worse where any is worse; else better where any is better; else equivalent where all are; else
    inconclusive. Errors: `ValueError` without any.
    """
    if not verdicts:
        raise ValueError("a verdict needs at least one primary task")
    for verdict in ("worse", "better"):
        if verdict in verdicts:
            return verdict
    return "equivalent" if set(verdicts) == {"equivalent"} else "inconclusive"


class Decision(NamedTuple):
    """Whether the variant is recommended; reasons: the rule's steps, each a sentence."""

    promote: bool
    reasons: tuple[str, ...]


def promote(
    verdict: Verdict,
    *,
    guard_passed: bool | None,
    worse_guard_tasks: Sequence[str],
    promote_on: Sequence[Verdict],
) -> Decision:
    """Whether the variant may take the baseline's place.

    guard_passed: whether the guard set's mean has not fallen behind by its margin, None where none
    was asked; worse_guard_tasks: guard tasks on which the variant is worse than its base. All of
    verdict, mean and each task have to hold.
    """
    wanted = " or ".join(promote_on)
    is_wanted = verdict in promote_on
    reasons = [
        f"The verdict over the primary tasks is {verdict}; "
        + (f"promotion asks for {wanted}: holds." if is_wanted else f"it would take {wanted}.")
    ]
    if guard_passed is None:
        reasons.append("No guard set was asked: what the adapter has cost elsewhere is unknown.")
    elif guard_passed:
        reasons.append("The guard set's mean has not fallen behind the base by the margin: holds.")
    else:
        reasons.append(
            "The guard set does not show that the mean has stayed within the margin of the base."
        )
    if worse_guard_tasks:
        reasons.append(f"Worse than the base on guard tasks: {', '.join(worse_guard_tasks)}.")
    elif guard_passed is not None:
        reasons.append("No guard task is worse than with the base: holds.")
    holds = is_wanted and guard_passed is not False and not worse_guard_tasks
    reasons.append("So: promote." if holds else "So: do not promote.")
    return Decision(holds, tuple(reasons))
