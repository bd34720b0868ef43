"""All gates on one artefact, and what becomes of a run whose artefact does not pass."""

from collections.abc import Sequence
from typing import NamedTuple

from configs.errors import UserError
from configs.schema import ArtefactFormat
from train.gates.acts import judge_acts
from train.gates.logits import judge_logits
from train.gates.losses import judge_loss
from train.gates.prompt import PromptCase, judge_prompt
from train.gates.results import GateResult
from train.gates.scoring import HeldOutRow, Scorer, Scores

# Rows that are answered, and tokens of an answer: greedy answers take a pass for each token.
NUM_ANSWERS = 16
MAX_ANSWER_TOKENS = 16


class Measured(NamedTuple):
    """What the gates look at in a model: scores of all rows, answers to the first of them."""

    scores: Scores
    answers: list[list[int]]


def measure(
    scorer: Scorer,
    rows: Sequence[HeldOutRow],
    *,
    num_answers: int = NUM_ANSWERS,
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> Measured:
    """Of reference, base and artefacts alike; with the same numbers for all."""
    found = scorer.score(rows)
    scores = Scores(found.log_probs, found.top_ids, found.top_log_probs)
    return Measured(scores, scorer.answer(rows[:num_answers], max_tokens=max_tokens))


def judge(
    scorer: Scorer,
    *,
    name: str,
    format: ArtefactFormat,
    rows: Sequence[HeldOutRow],
    cases: Sequence[PromptCase],
    base: Measured,
    reference: Measured,
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> list[GateResult]:
    """All four gates on the artefact that `scorer` runs.

    base, reference: `measure` of the bf16 base, and of base and unmerged adapter, on the same rows;
    cases: `build_prompt_cases` of them.
    """
    prompt = judge_prompt(cases, scorer, name=name)
    artefact = measure(scorer, rows, num_answers=len(reference.answers), max_tokens=max_tokens)
    return [
        judge_logits(reference.scores, artefact.scores, name=name, format=format),
        judge_acts(
            base.scores,
            reference.scores,
            artefact.scores,
            base_answers=base.answers,
            reference_answers=reference.answers,
            artefact_answers=artefact.answers,
            name=name,
        ),
        prompt,
        judge_loss(reference.scores, artefact.scores, name=name, format=format),
    ]


def check_passed(results: Sequence[GateResult], *, where: str | None = None) -> None:
    """Raise one `UserError` that tells of all gates that failed, with their figures and limits."""
    failed = [result for result in results if result["outcome"] == "failed"]
    if not failed:
        return
    lines = [
        f"{one['artefact']}, gate {one['gate']}: {one['told']} ({_numbers(one)})" for one in failed
    ]
    raise UserError(
        "an artefact does not carry the adapter as it should, and none was kept:\n"
        + "\n".join(f"  {line}" for line in lines),
        where=where,
        remedy="run the merge again; where the same gate fails again, follow what it says above, "
        "or leave the artefact out of merge.artefacts",
    )


def _numbers(result: GateResult) -> str:
    """Each figure that has a limit beside it."""
    return ", ".join(
        f"{name} {value:.4g} against {result['limits'][name]:.4g}"
        for name, value in result["figures"].items()
        if name in result["limits"]
    )
