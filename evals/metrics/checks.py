"""Verifiable checks of free answers: the metric of the guard sets.

A question's check holds `{"checks": [{"kind": …, and what that kind needs}, …]}`. An answer scores
1 if all of them hold and 0 otherwise, since an answer that follows half of an instruction has not
followed it.
"""

from collections.abc import Callable

from evals.metrics import check_formats, check_text
from evals.metrics.check_language import language
from evals.metrics.check_refusal import answered, refused
from evals.metrics.score import Reply, Score
from evals.task import Question

Check = Callable[..., str]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        check_text.number,
        check_text.answer,
        check_text.equals,
        check_text.contains,
        check_text.avoids,
        check_text.avoids_characters,
        check_text.occurrences,
        check_text.in_order,
        check_text.starts_with,
        check_text.ends_with,
        check_text.words,
        check_text.sentences,
        check_text.lines,
        check_text.paragraphs,
        check_text.bullets,
        check_text.numbered,
        check_text.each_line_starts,
        check_text.items,
        check_text.num_items,
        check_text.upper_case,
        check_text.lower_case,
        check_text.pattern,
        check_formats.json_object,
        check_formats.json_array,
        check_formats.yaml_mapping,
        check_formats.csv_rows,
        check_formats.markdown_table,
        check_formats.xml_element,
        language,
        refused,
        answered,
    )
}


def score_checks(reply: Reply, question: Question) -> Score:
    """1 if every check of the question holds, else 0 with why naming the first that does not.

    Raises ValueError for a question without checks, an unknown kind, or what a kind does not know.
    """
    checks = question.check.get("checks")
    if not checks:
        raise ValueError(f"question {question.id!r} has no checks")
    for check in checks:
        kind = check.get("kind")
        if kind not in CHECKS:
            raise ValueError(f"question {question.id!r}: no check is called {kind!r}")
        demands = {name: value for name, value in check.items() if name != "kind"}
        try:
            fault = CHECKS[kind](reply.text, **demands)
        except TypeError as error:
            raise ValueError(f"question {question.id!r}, check {kind}: {error}") from error
        if fault:
            return Score(0.0, why=f"{kind}: {fault}")
    return Score(1.0)
