import json
from pathlib import Path

import pytest
from rich.console import Console

from evals.results import ComparisonResult, TaskResult
from evals.table import ROLE_TITLES, VERDICT_STYLES, print_comparison, print_result
from tests.evals.report.factories import (
    build_evidence,
    build_result,
    build_task,
    many,
    minimal,
    realistic,
)

WIDTH = 80


def printed(result: ComparisonResult) -> list[str]:
    console = Console(width=WIDTH, record=True, highlight=False)
    print_result(result, console)
    return [line.rstrip() for line in console.export_text().splitlines()]


def cells(lines: list[str], first: str) -> list[str]:
    """What stands in the line that begins with `first`, without blanks."""
    (line,) = [line for line in lines if line.startswith(first)]
    return line.removeprefix(first).split()


def one_task(role: str = "primary", **changed: object) -> TaskResult:
    evidence = build_evidence("a task", role=role)  # type: ignore[arg-type]
    return build_task(evidence, **changed)  # type: ignore[arg-type]


def test_the_own_rows_are_told_with_every_prompt_and_which_one_counts() -> None:
    lines = printed(realistic()[0])
    assert lines[1] == "diagnosis to chapter  200 questions"
    assert cells(lines, "model") == ["score", "95", "%", "interval"]
    assert cells(lines, "mistral-small-2503, zero-shot") == ["0.000", "0.000", "to", "0.014"]
    counts = cells(lines, "mistral-small-2503, 4 examples")
    assert counts == ["0.150", "0.101", "to", "0.199", "<-", "baseline"]
    assert cells(lines, "demo-medical, zero-shot") == ["0.750", "0.690", "to", "0.810"]
    assert cells(lines, "difference in points") == ["+60.0", "+49.8", "to", "+70.2"]
    assert cells(lines, "verdict     ") == ["better", "p", "0.0004"]


def test_other_tasks_stand_in_a_line_each_below_what_they_are_for() -> None:
    result = realistic()[0]
    result["tasks"] = [task for task in result["tasks"] if task["name"] != "summaries for patients"]
    lines = printed(result)
    places = [lines.index(title) for title in ROLE_TITLES.values()]
    assert places == sorted(places)
    assert [lines[place + 1].split()[:3] for place in places] == [
        ["task", "n", "mistral-smal"],
        ["task", "n", "mistral-smal"],
        ["task", "n", "SmolLM2-135M"],
    ]
    below = [line.split()[0] for line in lines[places[2] + 2 : places[2] + 8]]
    assert below == ["arithmetic", "instructions", "languages", "formats", "tool", "refusals"]
    assert lines[places[1] + 2].startswith("MedMCQA")
    assert cells(lines, "refusals")[:7] == ["40", "0.900", "0.600", "-30.0", "-50.1", "to", "-9.9"]
    assert cells(lines, "refusals")[7] == "worse"


def test_what_was_not_asked_and_why_the_rule_decided_so_is_told() -> None:
    result = realistic()[0]
    lines = printed(result)
    assert "not asked: knowledge: its package could not be fetched: no network" in lines
    at = lines.index("verdict  better: do not promote")
    assert lines[at + 1 :] == [f"  {reason}" for reason in result["reasons"]]
    assert "verdict  better: promote" in printed(minimal()[0])


@pytest.mark.parametrize("build", [minimal, realistic, many])
def test_tables_keep_to_80_columns_without_losing_a_figure(build: object) -> None:
    result: ComparisonResult = build()[0]  # type: ignore[operator]
    lines = printed(result)
    [end] = [n for n, line in enumerate(lines) if line.startswith(f"verdict  {result['verdict']}:")]
    tables = lines[:end]
    assert all(len(line) <= WIDTH for line in tables if not line.startswith("not asked"))
    assert not any("…" in line for line in tables)
    for task in result["tasks"]:
        assert any(task["verdict"] in line for line in tables)
        assert any(f"{100 * task['delta']:+.1f}" in line for line in tables)


def test_long_names_cost_no_figure() -> None:
    name = "Mistral-Small-3.1-24B-Instruct-2503-of-a-long-name"
    task, outside = (
        build_task(build_evidence("w" * 60, role=role, sides=(name, name)), name=name)
        for role in ("primary", "guard")
    )
    lines = printed(build_result([task, outside]))
    assert all(len(line) <= WIDTH for line in lines)
    text = "\n".join(lines)
    for figure in ("0.250", "0.750", "+50.0 ", "<- baseline", "p 0.0004"):
        assert figure in text
    assert text.count("better") == 4


def test_a_run_without_further_tasks_has_no_empty_headings() -> None:
    lines = printed(minimal()[0])
    assert not set(lines) & set(ROLE_TITLES.values())
    assert not any(line.startswith("not asked") for line in lines)


@pytest.mark.parametrize(
    ("p_value", "told"), [(0.0312, "p 0.031"), (1.0, "p 1"), (1e-4, "p 0.0001"), (9e-5, "< 0.0001")]
)
def test_p_values_are_told_in_two_digits_but_never_as_nought(p_value: float, told: str) -> None:
    # The adjusted one, by which the verdict is.
    task = one_task(p_value=0.5, adjusted_p_value=p_value)
    lines = printed(build_result([task]))
    assert any(line.startswith("verdict     ") and line.endswith(told) for line in lines)


def test_the_confidence_is_the_configured_one() -> None:
    result = build_result([one_task(), one_task("guard")], confidence=0.9)
    assert "\n".join(printed(result)).count("90 % interval") == 2


@pytest.mark.parametrize("verdict", sorted(VERDICT_STYLES))
def test_every_verdict_can_be_told(verdict: str) -> None:
    lines = printed(build_result([one_task(verdict=verdict)], promote=False))
    assert f"verdict  {verdict}: do not promote" in lines


def test_names_in_brackets_are_names_and_no_markup() -> None:
    name = "chapters [ICD] [/] [bold]"
    tasks = [build_task(build_evidence(name, role=role)) for role in ("primary", "guard")]
    tasks[0]["baseline"]["name"] = tasks[1]["baseline"]["name"] = "[m] 7B"
    result = build_result(
        tasks, not_asked=[{"name": "[a]", "why": "[b]"}], reasons=[f"Worse on guard tasks: {name}."]
    )
    lines = printed(result)
    assert lines[1] == f"{name}  40 questions"
    assert "[m] 7B, zero-shot" in "\n".join(lines)
    assert any(line.startswith("task") and "[m] 7B" in line for line in lines)
    assert any(line.startswith(name) and line.endswith("better") for line in lines)
    assert "not asked: [a]: [b]" in lines
    assert lines[-1] == f"  Worse on guard tasks: {name}."


def test_a_finished_file_is_printed_and_handed_back(tmp_path: Path) -> None:
    file = tmp_path / "comparison.json"
    result = realistic()[0]
    file.write_text(json.dumps(result), encoding="utf-8")
    console = Console(width=WIDTH, record=True, highlight=False)
    assert print_comparison(file, console) == result
    assert [line.rstrip() for line in console.export_text().splitlines()] == printed(result)
