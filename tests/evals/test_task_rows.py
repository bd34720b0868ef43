"""From sources through the data stage to the questions of an evaluation, and to what is sent."""

import json
import logging
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.evaluation_schema import TaskConfig
from configs.load import load_config
from configs.schema import RunConfig
from data.conversation import Conversation, Message, text_of
from data.prepare import prepare
from evals.prompts import build_prompt
from evals.related_rows import clusters_of, known_places
from evals.rows import load_rows
from evals.task import EvaluationTask, Question
from evals.task_rows import load_own_task, load_task, tell_metric
from evals.tasks import build_inspect_task
from tests.configs.minimal import write_config
from tests.data.preparing import chat
from tests.evals.loopback_host import run_host
from tests.evals.test_tasks import ToolHost, run

CORPORA_CONFIGS = Path(__file__).parents[2] / "configs" / "corpora"
LONG = "A text of many words that nobody else has written in this way, nor will write so again. "
THINGS = re.findall(
    r"\w+",
    "anchor barrel candle dagger engine feather guitar hammer icicle jacket kettle ladder magnet "
    "needle orange pencil quartz ribbon saddle teapot umbrella violin wallet xylophone yogurt "
    "zipper acorn bucket cactus donkey",
)


def lines(prefix: str, count: int, **fields: object) -> list[dict[str, object]]:
    """Rows that are no near duplicates: each asks about things of its own."""
    rows = []
    for number in range(count):
        words = random.Random(f"{prefix}{number}").sample(THINGS, 6)
        rows.append(chat(f"{prefix} {' '.join(words)} {number}?", f"{words[0]}", **fields))
    return rows


def turns_of(row: dict[str, object]) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = json.loads(json.dumps(row["messages"]))
    return turns


class Stage:
    """The data stage on lines of JSON, and what the evaluation makes of its files."""

    def __init__(self, place: Path, checkpoint: Path) -> None:
        self.place, self.checkpoint = place, checkpoint
        self.folder = place / "run" / "data"
        self.folder.parent.mkdir()

    def write(self, name: str, rows: Sequence[object]) -> dict[str, Any]:
        file = self.place / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"kind": "files", "path": file}

    def config(
        self, *, evaluation: dict[str, Any] | None = None, context: int = 1024, **data: object
    ) -> RunConfig:
        file = write_config(self.place, ("path: weights", f"path: {self.checkpoint}"))
        written = load_config(file).model_dump()
        written["model"]["max_length"] = 512
        written["data"] |= {"test_fraction": 0.3, "validation_fraction": 0.2} | data
        written["serve"]["context_length"] = context
        written["evaluation"] |= {"num_examples": 2} | (evaluation or {})
        return RunConfig.model_validate(written)

    def prepare(self, config: RunConfig) -> None:
        prepare(config, self.folder)

    def own(self, config: RunConfig) -> EvaluationTask:
        return load_own_task(config, self.folder)

    def further(self, config: RunConfig) -> EvaluationTask:
        (task,) = config.evaluation.tasks
        return load_task(task, config=config, data_folder=self.folder)


@pytest.fixture
def stage(tmp_path: Path, tiny_checkpoint: Path) -> Stage:
    return Stage(tmp_path, tiny_checkpoint)


def texts(task: EvaluationTask) -> list[str]:
    return [text_of(question.messages[-1]) for question in task.questions]


# The run's own test rows.


def test_own_rows_are_asked_with_examples_of_the_rows_to_train_on(stage: Stage) -> None:
    source = stage.write("rows.jsonl", lines("Own", 60))
    config = stage.config(source=source | {"licence": "MIT"}, system_prompt="Be brief.")
    stage.prepare(config)
    task = stage.own(config)
    assert (task.name, task.role, task.metric) == ("a task", "primary", "normalized_match")
    assert (task.licence, task.max_tokens, task.num_epochs) == ("MIT", 48, 1)
    assert {question.messages[0]["content"] for question in task.questions} == {"Be brief."}
    assert len(task.examples) == 2
    asked = set(texts(task))
    assert 5 < len(asked) < 40
    assert not asked & {text_of(row.messages[-2]) for row in task.examples}
    fewer = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"num_samples": 3})}
    )
    assert stage.own(fewer).questions == task.questions[:3]


def test_rows_of_a_group_and_near_duplicates_are_one_cluster(stage: Stage) -> None:
    grouped = lines("Grouped", 6)
    rows = [
        *lines("Train", 10),
        *(row | {"group": f"g{number // 2}"} for number, row in enumerate(grouped)),
        *(chat(f"{LONG * 2}Which one is it, number {number}?", "x") for number in range(3)),
    ]
    test = stage.write("test.jsonl", rows[10:])
    source = stage.write("rows.jsonl", rows[:10]) | {"test_path": test["path"]}
    config = stage.config(source=source)
    stage.prepare(config)
    task = stage.own(config)
    clusters: dict[str, list[str]] = {}
    for question in task.questions:
        clusters.setdefault(question.cluster, []).append(text_of(question.messages[-1]))
    assert sorted(len(members) for members in clusters.values()) == [2, 2, 2, 3]
    assert {len({text.split()[0] for text in members}) for members in clusters.values()} == {1}
    assert {q.cluster for q in task.questions} <= {q.id for q in task.questions}


def test_rows_whose_words_are_trained_on_are_known(stage: Stage) -> None:
    train = [*lines("Train", 30), chat("Tell me a story.", LONG * 2)]
    tests = [*lines("Fresh", 20), chat(f"{LONG * 2}Who wrote it?", "Nobody.")]
    source = stage.write("rows.jsonl", train)
    source["test_path"] = stage.write("test.jsonl", tests)["path"]
    config = stage.config(source=source)
    stage.prepare(config)
    known = [text_of(q.messages[-1]) for q in stage.own(config).questions if q.is_known]
    assert known == [f"{LONG * 2}Who wrote it?"]


def test_too_few_rows_are_told(stage: Stage) -> None:
    source = stage.write("rows.jsonl", lines("Train", 10))
    source["test_path"] = stage.write("test.jsonl", lines("Test", 1))["path"]
    config = stage.config(source=source)
    stage.prepare(config)
    with pytest.raises(UserError, match="at least two rows; a task has 1"):
        stage.own(config)


def test_rows_with_tools_go_from_the_source_to_the_host(
    tmp_path: Path, mistral_checkpoint: Path
) -> None:
    stage = Stage(tmp_path, mistral_checkpoint)
    number = {"type": "string", "pattern": "^[0-9]+$"}
    parameters = {"type": "object", "properties": {"number": number}, "required": ["number"]}
    tool = {"type": "function", "function": {"name": "look_up", "parameters": parameters}}
    rows = []
    for n, row in enumerate(lines("Number", 12)):
        asked = turns_of(row)[0]
        call = {"name": "look_up", "arguments": json.dumps({"number": str(n)})}
        calls = [{"id": f"call{n:05d}", "type": "function", "function": call}]
        turns = [asked, {"role": "assistant", "content": "", "tool_calls": calls}]
        rows.append({"messages": turns, "tools": [tool], "id": f"n{n}"})
    source = stage.write("rows.jsonl", [*rows[:6], *lines("Plain", 6)])
    source["test_path"] = stage.write("test.jsonl", rows[6:])["path"]
    config = stage.config(source=source, system_prompt="Be brief.")
    stage.prepare(config)
    task = stage.own(config)
    assert task.metric == "tool_call"
    assert len(task.questions) == 6
    call = {"name": "look_up", "arguments": '{"number":  "7"}'}
    answer = {"role": "assistant", "content": None}
    calls = [{"id": "x", "type": "function", "function": call}]
    with run_host(ToolHost(answer | {"tool_calls": calls}, stop="tool_calls")) as host:
        log = run(build_inspect_task(task), host, tmp_path / "logs")
    assert len(host.requests) == 6
    sent = {json.dumps(body["messages"]) for body in host.requests}
    assert sent == {json.dumps(build_prompt(question)) for question in task.questions}
    assert all(body["tools"] == [tool] for body in host.requests)
    scores = {
        sample.id: score.value
        for sample in log.samples or []
        for score in (sample.scores or {}).values()
    }
    assert scores == {f"n{n}": float(n == 7) for n in range(6, 12)}


# Further sets.


def further(source: dict[str, Any], **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"tasks": [{"name": "further", "source": source, **fields}]}


def test_a_sets_test_rows_are_asked_with_examples_of_its_own(stage: Stage) -> None:
    own = stage.write("rows.jsonl", lines("Own", 40))
    one = stage.write("set_train.jsonl", lines("Further train", 20))
    one["test_path"] = stage.write("set_test.jsonl", lines("Further test", 12))["path"]
    config = stage.config(
        source=own,
        system_prompt="Be brief.",
        evaluation=further(one | {"licence": "CC0"}, num_samples=8, max_tokens=5, primary=False),
    )
    stage.prepare(config)
    task = stage.further(config)
    assert (task.name, task.role, task.max_tokens, task.licence) == (
        "further",
        "exploratory",
        5,
        "CC0",
    )
    assert len(task.questions) == 8
    assert all(text.startswith("Further test") for text in texts(task))
    assert {question.messages[0]["content"] for question in task.questions} == {"Be brief."}
    shown = [text_of(row.messages[-2]) for row in task.examples]
    assert len(shown) == 2
    assert all(text.startswith("Further train") for text in shown)
    build_inspect_task(task, with_examples=True)


def test_which_rows_are_asked_does_not_hang_on_their_order(stage: Stage) -> None:
    own = stage.write("rows.jsonl", lines("Own", 40))
    rows = lines("Further", 50)
    one = stage.write("set.jsonl", rows)
    config = stage.config(source=own, evaluation=further(one, num_samples=10))
    stage.prepare(config)
    asked = texts(stage.further(config))
    assert len(asked) == 10
    random.Random(3).shuffle(rows)
    stage.write("set.jsonl", [*rows, *rows[:20]])
    assert texts(stage.further(config)) == asked


def test_a_set_without_a_test_side_has_no_examples_and_says_so(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    own = stage.write("rows.jsonl", lines("Own", 40))
    one = stage.write("set.jsonl", lines("Further", 9))
    config = stage.config(source=own, evaluation=further(one))
    stage.prepare(config)
    with caplog.at_level(logging.WARNING):
        task = stage.further(config)
    assert len(task.questions) == 9
    assert task.examples == ()
    assert "0 worked examples instead of 2" in caplog.text


def test_rows_that_cannot_be_asked_are_counted(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    own = stage.write("rows.jsonl", lines("Own", 40))
    rows = [*lines("Further", 9), chat("Empty?", ""), chat(LONG * 40, "long")]
    one = stage.write("set.jsonl", rows)
    config = stage.config(source=own, context=600, evaluation=further(one))
    stage.prepare(config)
    with caplog.at_level(logging.WARNING):
        assert len(stage.further(config).questions) == 9
    assert "1 rows are not asked" in caplog.text
    assert "more than 552 tokens" in caplog.text
    assert "set.jsonl:10" in caplog.text
    assert "set.jsonl:11" in caplog.text


def test_rows_of_a_set_are_kept_out_of_training_and_known_where_it_says_so(stage: Stage) -> None:
    both = lines("Both", 3)
    own = stage.write("rows.jsonl", [*lines("Own", 60), *both])
    one = stage.write("set.jsonl", [*lines("Further", 30), *both])
    config = stage.config(source=own, evaluation=further(one, num_samples=50))
    stage.prepare(config)
    task = stage.further(config)
    known = {text_of(q.messages[-1]) for q in task.questions if q.is_known}
    assert known == {turns_of(row)[0]["content"] for row in both}
    trained = load_rows(stage.folder / "train.parquet")
    assert not known & {text_of(row.messages[0]) for row in trained}
    assert len(task.questions) == 33


def test_a_set_that_was_never_compared_is_refused(stage: Stage) -> None:
    own = stage.write("rows.jsonl", lines("Own", 40))
    one = stage.write("set.jsonl", lines("Further", 9))
    stage.prepare(stage.config(source=own))
    with pytest.raises(UserError, match=r"set\.jsonl were never compared"):
        stage.further(stage.config(source=own, evaluation=further(one)))


def test_personal_data_of_a_set_is_masked_as_in_training(stage: Stage) -> None:
    own = stage.write("rows.jsonl", lines("Own", 40))
    rows = [*lines("Further", 5), chat("Who is jane.roe@hospital.example.org?", "A nurse.")]
    one = stage.write("set.jsonl", rows)
    config = stage.config(source=own, personal_data={"action": "mask"}, evaluation=further(one))
    stage.prepare(config)
    asked = " ".join(texts(stage.further(config)))
    assert "Who is" in asked
    assert "jane.roe" not in asked


def test_ids_given_twice_are_told_apart(stage: Stage) -> None:
    own = stage.write("rows.jsonl", lines("Own", 40))
    one = stage.write("set.jsonl", lines("Further", 4, id="same"))
    config = stage.config(source=own, evaluation=further(one))
    stage.prepare(config)
    ids = [question.id for question in stage.further(config).questions]
    assert ids == ["same", "same #2", "same #3", "same #4"]


# Which metric.


def question(reference: Message, asked: str = "Who?") -> Question:
    turn = Message(role="user", content=asked)
    return Question(id="1", messages=(turn,), reference=reference, cluster="1")


OPTIONS = "Which?\n\nA) one\nB) two\n\nAnswer with the letter."


@pytest.mark.parametrize(
    ("source", "asked", "answer", "metric"),
    [
        ({"kind": "icd10_chapters"}, "Who?", "Me", "normalized_match"),
        ({"kind": "icd10_chapters"}, OPTIONS, "B", "choice"),
        ({"kind": "icd10_chapters"}, OPTIONS, "C", "normalized_match"),
        ({"kind": "preset", "name": "pubmedqa"}, OPTIONS, "B", "macro_f1"),
        ({"kind": "preset", "name": "medqa"}, "Who?", "B", "choice"),
        ({"kind": "preset", "name": "nl2bash"}, "List files.", "ls", "command"),
    ],
)
def test_the_metric_is_the_presets_or_that_of_the_rows(
    source: dict[str, Any], asked: str, answer: str, metric: str
) -> None:
    task = TaskConfig.model_validate({"name": "t", "source": source})
    found = tell_metric(task.source, [question({"role": "assistant", "content": answer}, asked)])
    assert found == metric


def test_what_is_configured_comes_first(stage: Stage) -> None:
    own = stage.write("rows.jsonl", lines("Own", 40))
    schema = {"type": "object"}
    one = stage.write("set.jsonl", lines("Further", 4))
    judged = {"metric": "json_schema", "json_schema": schema}
    config = stage.config(source=own, evaluation={"metric": "token_f1"} | further(one, **judged))
    stage.prepare(config)
    assert stage.own(config).metric == "token_f1"
    task = stage.further(config)
    assert task.metric == "json_schema"
    assert {json.dumps(q.check) for q in task.questions} == {json.dumps({"json_schema": schema})}


# What the data stage wrote.


def conversation(name: str, group: str = "") -> Conversation:
    turns: tuple[Message, ...] = (
        {"role": "user", "content": name},
        {"role": "assistant", "content": "x"},
    )
    return Conversation(id=name, where=name, group=group, messages=turns)


def test_clusters_join_across_groups_and_near_duplicates(tmp_path: Path) -> None:
    (tmp_path / "clusters.jsonl").write_text(
        '{"kind":"near","rows":["elsewhere","b","c"]}\n{"kind":"exact","rows":["x","y"]}\n'
    )
    rows = [
        conversation("a", "g"),
        conversation("b", "g"),
        conversation("c"),
        conversation("d"),
        conversation("e", "h"),
    ]
    assert clusters_of(rows, tmp_path) == ["a", "a", "a", "d", "e"]


def test_a_row_left_out_as_equal_is_as_known_as_the_one_kept(tmp_path: Path) -> None:
    (tmp_path / "clusters.jsonl").write_text('{"kind":"exact","rows":["kept","left"]}\n')
    (tmp_path / "facts.json").write_text('{"sources":[{"label":"set"}]}')
    (tmp_path / "contamination.jsonl").write_text(
        '{"set":"set","test":"kept","known":true}\n{"set":"set","test":"overlaps","known":false}\n'
        '{"set":"other","test":"fresh","known":true}\n'
    )
    places = {"left", "overlaps", "fresh"}
    assert known_places("set", places, tmp_path) == {"left"}


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read") as caught:
        clusters_of([conversation("a")], tmp_path)
    assert caught.value.where == str(tmp_path / "clusters.jsonl")


# The public corpora.


@pytest.mark.corpora
@pytest.mark.skipif("TUNERY_CORPORA" not in os.environ, reason="TUNERY_CORPORA is not set")
@pytest.mark.parametrize(
    ("name", "metric", "num_questions"),
    [("mmlu-medicine", None, 282), ("mmlu-law", None, 1534), ("pubmedqa", "macro_f1", 500)],
)
def test_corpora_are_asked_whole(
    name: str, metric: str | None, num_questions: int, stage: Stage
) -> None:
    corpus = load_config(CORPORA_CONFIGS / f"{name}.yaml")
    source = corpus.data.source.model_dump()
    config = stage.config(
        source=stage.write("rows.jsonl", lines("Own", 40)),
        context=16384,
        evaluation=further(source, num_samples=10_000, metric=metric, max_tokens=4),
    )
    stage.prepare(config)
    task = stage.further(config)
    assert len(task.questions) == num_questions
    assert task.metric == (metric or "choice")
    assert len({question.cluster for question in task.questions}) > 0.8 * num_questions
    assert len(task.examples) == 2
    assert (task.licence, any(q.is_known for q in task.questions)) == ("MIT", False)
