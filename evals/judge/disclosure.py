"""What a report has to say of the judge: how it was asked, and where to doubt it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from evals.results import JudgeResult, TaskResult

MAX_FLIP_RATE = 0.3
MAX_LENGTH_DIFFERENCE = 0.25
MAX_UNREADABLE_SHARE = 0.05
# Makers whose models go by several names; a judge prefers its own kind (Panickssery et al. 2024,
# arXiv 2404.13076).
FAMILIES = {
    "mistral": ("mistral", "ministral", "mixtral", "magistral", "devstral", "codestral", "pixtral"),
    "openai": ("gpt", "chatgpt", "o1", "o3", "o4"),
    "google": ("gemini", "gemma", "medgemma"),
    "meta": ("llama", "meta", "codellama"),
    "qwen": ("qwen", "qwq", "qvq"),
    "smollm": ("smollm", "smolvlm"),
    "cohere": ("command", "aya"),
}


class JudgeStatement(NamedTuple):
    """facts: sentences for every report; warnings: why this judge's word may not be worth much."""

    facts: list[str]
    warnings: list[str]


def describe_judge(task: TaskResult, *, judged_models: Sequence[str]) -> JudgeStatement:
    """Sentences about the judge of `task`, whose result has to hold one.

    judged_models: names of the models whose answers were judged; of a variant its base's.
    """
    judge = task["judge"]
    assert judge is not None, f"{task['name']} was not judged"
    num_pairs = task["num_samples"] * task["num_epochs"]
    warnings = [
        *_kinship_warnings(judge["model"], judged_models),
        *_quality_warnings(judge, num_judgements=2 * num_pairs),
    ]
    return JudgeStatement(facts=_facts(judge), warnings=warnings)


def model_family(model: str) -> str:
    """Whose kind a model is, by its name: `mistralai/Mistral-Small-2503` is of `mistral`."""
    name = model.rsplit("/", maxsplit=1)[-1].casefold()
    first = re.match(r"o\d|[a-z]*", name)
    stem = first.group() if first else ""
    for family, stems in FAMILIES.items():
        if stem in stems:
            return family
    return stem or name


def _facts(judge: JudgeResult) -> list[str]:
    if judge["flip_rate"] is None:
        how = "it graded each answer by the rubric, from 1 to 5, without seeing the other side's"
    else:
        how = "it compared both answers to each question in both orders"
    facts = [f"The judge was {judge['model']}; {how}, at temperature 0, and saw no model's name."]
    if judge["flip_rate"] is not None:
        facts.append(
            f"Its verdict hung on the order in {judge['flip_rate']:.0%} of the pairs that it "
            "judged readably in both; these count as ties."
        )
    facts.append(f"{_length(judge['length_difference'])}.")
    if judge["num_unreadable"]:
        counted = "ties" if judge["flip_rate"] is not None else "0"
        facts.append(
            f"{judge['num_unreadable']} of its replies held no verdict and count as {counted}."
        )
    return facts


def _length(difference: float) -> str:
    if abs(difference) < 0.005:
        return "The variant's answers are as long as the baseline's"
    word = "longer" if difference > 0 else "shorter"
    return f"The variant's answers are {abs(difference):.0%} {word} than the baseline's"


def _kinship_warnings(judge: str, judged_models: Sequence[str]) -> list[str]:
    names = {model.rsplit("/", maxsplit=1)[-1].casefold(): model for model in judged_models}
    same = names.get(judge.rsplit("/", maxsplit=1)[-1].casefold())
    if same is not None:
        return [f"The judge {judge} judged its own answers: models prefer what they wrote."]
    kin = [model for model in names.values() if model_family(model) == model_family(judge)]
    return [
        f"The judge {judge} is of the same family as {model}: models prefer their own kind."
        for model in kin
    ]


def _quality_warnings(judge: JudgeResult, *, num_judgements: int) -> list[str]:
    warnings = []
    flip_rate = judge["flip_rate"]
    if flip_rate is not None and flip_rate > MAX_FLIP_RATE:
        warnings.append(
            f"The order decided {flip_rate:.0%} of the pairs: this judge can hardly tell these "
            "answers apart; another judge, or a clearer rubric, is needed."
        )
    if judge["length_difference"] > MAX_LENGTH_DIFFERENCE:
        warnings.append(
            f"{_length(judge['length_difference'])}: judges lean towards longer answers, so see "
            "in the samples that they are liked for something else."
        )
    if judge["num_unreadable"] > MAX_UNREADABLE_SHARE * num_judgements:
        warnings.append(
            f"{judge['num_unreadable']} of {num_judgements} judgements held no verdict: the judge "
            "does not keep to the form, or judge.max_tokens cuts it off."
        )
    return warnings
