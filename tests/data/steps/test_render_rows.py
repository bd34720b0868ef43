import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.splits import BEYOND_LIMIT, NEAR_TEST, REJECT_REASONS, SIDES, TASK, TEST, TRAIN
from data.steps.render_rows import (
    BucketDecisions,
    RenderResult,
    RenderTask,
    render_bucket,
    supervised_spans,
)
from data.steps.rendered_batch import ROW_SCHEMA
from data.steps.spool import Spool
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.mistral_images import IMG, IMG_END
from tests.data.spool_rows import spool_batch, spool_row

TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
WITH_TOOLS = [
    {"role": "user", "content": "Which one?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "that", "tool_call_id": "call_1"},
    {"role": "assistant", "content": "That one."},
]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WITH_IMAGE = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]},
    {"role": "assistant", "content": "a pixel"},
]


class Rendering:
    """Renders one bucket of rows, all decisions given in the order of their ids."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.spool = Spool(folder / "spool")
        self.spool.folder.mkdir()
        self.checkpoint = checkpoint

    def __call__(
        self,
        rows: Sequence[dict[str, Any]],
        actions: Sequence[int],
        *,
        max_length: int = 512,
        system_prompt: str | None = None,
        **decisions: Any,  # noqa: ANN401
    ) -> RenderResult:
        table = pa.Table.from_batches([spool_batch(rows)])
        self.spool.replace(0, table)
        order = [[row["id"] for row in rows].index(id) for id in table.column("id").to_pylist()]
        given = {
            "actions": np.array(actions, np.int8),
            "renamed": np.zeros(len(rows), bool),
            "copied": np.zeros(len(rows), np.float32),
        } | decisions
        arrays = {name: np.asarray(values)[order] for name, values in given.items()}
        task = RenderTask(
            spool=self.spool,
            checkpoint=self.checkpoint,
            system_prompt=system_prompt,
            max_length=max_length,
        )
        return render_bucket(task, BucketDecisions(bucket=0, num_samples=2, **arrays))


@pytest.fixture
def render(tmp_path: Path, tiny_checkpoint: Path) -> Rendering:
    return Rendering(tmp_path, tiny_checkpoint)


def reasons(result: RenderResult) -> dict[str, str]:
    return {reject.where.removeprefix("rows.jsonl:"): reject.reason for _, reject in result.rejects}


def test_each_row_goes_where_it_was_decided(render: Rendering) -> None:
    rows = [spool_row(str(n), "answer " * n) for n in range(1, 7)]
    result = render(rows, [0, 1, 2, TASK, NEAR_TEST, BEYOND_LIMIT])
    ids = {side: table.column("id").to_pylist() for side, table in result.tables.items()}
    assert ids == {"train": ["1"], "validation": ["2"], "test": ["3"]}
    # What a rule of the configuration leaves out is counted elsewhere.
    assert reasons(result) == {"5": REJECT_REASONS[NEAR_TEST]}
    assert [SIDES[side] for side in result.statistics["side"]] == ["train", "validation", "test"]
    for side, table in result.tables.items():
        assert table.schema.equals(ROW_SCHEMA)
        counts = result.statistics[SIDES.index(side)]
        assert counts["length"] == len(table.column("input_ids")[0])
        assert counts["supervised"] == sum(table.column("assistant_mask")[0].as_py())
        assert (
            table.column("id")[0].as_py()
            == render.spool.read(0).column("id")[int(counts["row"])].as_py()
        )


def test_many_rows_are_rendered_in_slices_as_in_one(
    render: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [spool_row(f"Which number is {n}?", f"It is {n}.") for n in range(50)]
    whole = render(rows, [TRAIN] * 50)
    monkeypatch.setattr("data.steps.render_rows.ROWS_AT_A_TIME", 7)
    cut = render(rows, [TRAIN] * 50)
    assert cut.tables["train"].combine_chunks().equals(whole.tables["train"].combine_chunks())
    assert (cut.statistics == whole.statistics).all()


def test_ids_given_twice_get_a_part_of_their_contents_hash(render: Rendering) -> None:
    rows = [spool_row("1"), spool_row("2")]
    result = render(rows, [TRAIN, TRAIN], renamed=[True, False])
    ids = sorted(result.tables["train"].column("id").to_pylist())
    assert ids == [f"1 #{rows[0]['key'].hex()[:8]}", "2"]


def test_the_share_of_copied_words_is_kept(render: Rendering) -> None:
    result = render([spool_row("1"), spool_row("2")], [TEST, TEST], copied=[0.25, 0.0])
    table = result.tables["test"]
    shares = dict(
        zip(table.column("id").to_pylist(), table.column("copied_share").to_pylist(), strict=True)
    )
    assert shares == {"1": 0.25, "2": 0.0}


def test_what_is_known_of_a_row_stays_with_it_when_others_before_it_are_out(
    render: Rendering,
) -> None:
    rows = [spool_row(str(n), "x" * 500 if n % 2 else "short") for n in range(12)]
    result = render(
        rows,
        [TEST] * 12,
        max_length=120,
        copied=[n / 16 for n in range(12)],
        renamed=[n == 4 for n in range(12)],
    )
    table, spooled = result.tables["test"], render.spool.read(0).column("id").to_pylist()
    found = {row["id"].partition(" #")[0]: row for row in table.to_pylist()}
    assert sorted(found, key=int) == ["0", "2", "4", "6", "8", "10"]
    assert all(row["copied_share"] == int(id) / 16 for id, row in found.items())
    assert [id for id, row in found.items() if " #" in row["id"]] == ["4"]
    assert [spooled[row] for row in result.statistics["row"]] == list(found)


def test_samples_are_training_rows_with_the_supervised_part_told(render: Rendering) -> None:
    rows = [spool_row(str(n), f"answer {n}") for n in range(5)]
    result = render(rows, [TEST, *[TRAIN] * 4])
    assert len(result.samples) == 2
    for spans in result.samples:
        (supervised,) = [span.text for span in spans if span.supervised]
        assert supervised.startswith("answer ")
        assert supervised.endswith("<|im_end|>")
        assert "answer 0" not in supervised


# Rows that cannot be used.


def test_a_row_that_is_too_long_is_cut_for_training_and_out_for_testing(render: Rendering) -> None:
    turns = [
        {"role": role, "content": f"{role} {n}"}
        for n in range(20)
        for role in ("user", "assistant")
    ]
    rows = [
        spool_row("cut", messages=turns),
        spool_row("tested", messages=turns[20:]),
        spool_row("hopeless", "x" * 500),
    ]
    result = render(rows, [TRAIN, TEST, TRAIN], max_length=120)
    assert reasons(result) == {
        "tested": "a test row of more than 120 tokens",
        "hopeless": "cut to 120 tokens, no assistant turn is left",
    }
    (counts,) = result.statistics
    assert counts["dropped"] > 0
    assert counts["dropped"] % 2 == 0
    assert 90 < counts["length"] <= 120


def test_tools_that_the_template_leaves_out_are_no_silent_loss(render: Rendering) -> None:
    row = spool_row("tools", messages=WITH_TOOLS, tools=orjson.dumps(TOOLS))
    assert "the chat template" in reasons(render([row], [TRAIN]))["tools"]


def test_rows_with_tools_and_images_are_tested_too(
    tmp_path: Path, mistral_checkpoint: Path
) -> None:
    render = Rendering(tmp_path, mistral_checkpoint)
    tools = orjson.dumps(TOOLS)
    rows = [
        spool_row("answered", messages=WITH_TOOLS, tools=tools),
        spool_row("called", messages=WITH_TOOLS[:2], tools=tools),
        spool_row("offered", tools=tools),
        spool_row("shown", messages=WITH_IMAGE),
    ]
    result = render(rows, [TEST] * 4)
    assert reasons(result) == {}
    tested = result.tables["test"]
    written = dict(zip(tested.column("id").to_pylist(), tested.to_pylist(), strict=True))
    assert json.loads(written["called"]["messages"])[-1]["tool_calls"] == [CALL]
    assert json.loads(written["offered"]["tools"]) == TOOLS
    assert json.loads(written["shown"]["messages"]) == WITH_IMAGE


def test_what_no_evaluation_can_ask_is_told(tmp_path: Path, mistral_checkpoint: Path) -> None:
    render = Rendering(tmp_path, mistral_checkpoint)
    row = spool_row("waits", messages=WITH_TOOLS[:3], tools=orjson.dumps(TOOLS))
    result = render([row], [TEST])
    assert reasons(result) == {"waits": "a test row that does not end with the assistant's answer"}


def test_what_training_cannot_use_yet_is_told(tmp_path: Path, mistral_checkpoint: Path) -> None:
    render = Rendering(tmp_path, mistral_checkpoint)
    rows = [
        spool_row("trained", messages=WITH_TOOLS, tools=orjson.dumps(TOOLS)),
        spool_row("compared", messages=WITH_IMAGE, rejected=orjson.dumps(answer("a dot"))),
    ]
    result = render(rows, [TRAIN, TRAIN])
    assert reasons(result) == {
        "compared": "a preference pair with images, which training does not take yet"
    }
    assert result.tables["train"].column("id").to_pylist() == ["trained"]


# Rows with images.


def test_rows_with_images_are_trained_on_with_their_images(
    tmp_path: Path, mistral_checkpoint: Path
) -> None:
    render = Rendering(tmp_path, mistral_checkpoint)
    rows = [spool_row("train", messages=WITH_IMAGE), spool_row("validation", messages=WITH_IMAGE)]
    result = render(rows, [0, 1], system_prompt="Look.")
    assert reasons(result) == {}
    for side in ("train", "validation"):
        (row,) = result.tables[side].to_pylist()
        assert orjson.loads(row["messages"]) == [
            {"role": "system", "content": "Look."},
            *WITH_IMAGE,
        ]
        # A pixel is one token and its end.
        assert row["input_ids"].count(IMG) == row["input_ids"].count(IMG_END) == 1


def test_images_that_were_cut_with_their_turns_are_not_written(
    tmp_path: Path, mistral_checkpoint: Path
) -> None:
    render = Rendering(tmp_path, mistral_checkpoint)
    row = spool_row("cut", messages=WITH_IMAGE * 10)
    (written,) = render([row], [TRAIN], max_length=30).tables["train"].to_pylist()
    messages = orjson.loads(written["messages"])
    num_images = written["input_ids"].count(IMG_END)
    assert 0 < num_images < 10
    assert messages == WITH_IMAGE * num_images


@pytest.mark.parametrize("kind", ["no vision tower", "another template"])
def test_images_are_refused_for_models_that_take_none(
    tmp_path: Path, mistral_checkpoint: Path, tiny_checkpoint: Path, kind: str
) -> None:
    checkpoint = tiny_checkpoint
    if kind == "no vision tower":
        checkpoint = tmp_path / "text model"
        shutil.copytree(mistral_checkpoint, checkpoint)
        (checkpoint / "config.json").write_text('{"model_type": "mistral"}')
    rows = [spool_row("image", messages=WITH_IMAGE), spool_row("text")]
    result = Rendering(tmp_path, checkpoint)(rows, [TRAIN, TRAIN])
    assert reasons(result) == {"image": "holds an image, which rows for this model cannot have"}
    assert result.tables["train"].num_rows == 1


def test_few_rows_are_held_at_a_time_where_they_are_large(
    render: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [spool_row(f"Which number is {n}?", f"It is {n}." + "x" * 90) for n in range(30)]
    whole = render(rows, [TRAIN] * 30)
    assert whole.tables["train"].column("id").num_chunks == 1
    monkeypatch.setattr("data.steps.render_rows.BYTES_AT_A_TIME", 1000)
    cut = render(rows, [TRAIN] * 30)
    assert 5 < cut.tables["train"].column("id").num_chunks < 15
    assert cut.tables["train"].combine_chunks().equals(whole.tables["train"].combine_chunks())


# Preference pairs.


def answer(text: str, **fields: object) -> dict[str, object]:
    return {"role": "assistant", "content": text, **fields}


def pair(id: str, preferred: str, rejected: object, **fields: object) -> dict[str, Any]:
    return spool_row(id, preferred, rejected=orjson.dumps(rejected).decode(), **fields)


def test_both_answers_of_a_pair_are_rendered_behind_the_same_prompt(
    render: Rendering, tiny_checkpoint: Path
) -> None:
    rows = [pair("Which?", "this one", answer("no")), spool_row("plain")]
    table = render(rows, [TRAIN, TRAIN], system_prompt="Choose.").tables["train"]
    (one,), (plain,) = (
        table.filter(pc.equal(table["id"], id)).to_pylist() for id in ("Which?", "plain")
    )
    assert orjson.loads(one["rejected"]) == answer("no")
    tokenizer = load_tokenizer(tiny_checkpoint)
    prompt, preferred = supervised_spans(one["input_ids"], one["assistant_mask"], tokenizer)[:2]
    same_prompt, rejected = supervised_spans(one["rejected_ids"], one["rejected_mask"], tokenizer)[
        :2
    ]
    assert prompt == same_prompt
    assert "Choose." in prompt.text
    assert preferred == ("this one<|im_end|>", True)
    assert rejected == ("no<|im_end|>", True)
    assert (plain["rejected"], plain["rejected_ids"], plain["rejected_mask"]) == ("", None, None)


def test_pairs_are_counted(render: Rendering) -> None:
    rows = [pair("pair", "yes", answer("no")), spool_row("plain")]
    result = render(rows, [TRAIN, TRAIN])
    assert sorted(result.statistics["preference"].tolist()) == [False, True]
    # Lengths are those of the preferred answer, which training by answers sees alone.
    lengths = [len(ids) for ids in result.tables["train"].column("input_ids").to_pylist()]
    assert result.statistics["length"].tolist() == lengths


def test_an_answer_of_a_pair_is_never_cut(render: Rendering) -> None:
    earlier = [
        {"role": role, "content": f"{role} {n}"} for n in range(2) for role in ("user", "assistant")
    ]
    question = {"role": "user", "content": "Which?"}
    rows = [
        pair("fits", "this", answer("that")),
        pair(
            "long preferred",
            "x" * 300,
            answer("no"),
            messages=[*earlier, question, answer("x" * 300)],
        ),
        pair("long rejected", "yes", answer("x" * 300)),
        spool_row("no pair", messages=[*earlier, question, answer("x" * 300)]),
    ]
    result = render(rows, [TRAIN] * 4, max_length=200)
    assert reasons(result) == {
        "long preferred": "a preference pair of more than 200 tokens",
        "long rejected": "a preference pair of more than 200 tokens",
    }
    assert sorted(result.tables["train"].column("id").to_pylist()) == ["fits", "no pair"]


def test_a_pair_whose_answers_are_the_same_tokens_is_no_pair(
    tmp_path: Path, mistral_checkpoint: Path
) -> None:
    # Mistral's form drops blanks behind an answer.
    render = Rendering(tmp_path, mistral_checkpoint)
    assert reasons(render([pair("blanks", "yes", answer("yes  "))], [TRAIN])) == {
        "blanks": "the preferred and the rejected answer are the same tokens"
    }


def test_a_rejected_answer_that_cannot_be_rendered_is_told(
    tmp_path: Path, mistral_checkpoint: Path
) -> None:
    render = Rendering(tmp_path, mistral_checkpoint)
    call = CALL | {"function": {"name": "look_up", "arguments": "["}}
    assert reasons(render([pair("call", "yes", answer("", tool_calls=[call]))], [TRAIN])) == {
        "call": "its rejected answer: the arguments of the call of look_up are not JSON"
    }


def test_a_call_may_be_preferred_to_a_text(tmp_path: Path, mistral_checkpoint: Path) -> None:
    render = Rendering(tmp_path, mistral_checkpoint)
    messages = WITH_TOOLS[:2]
    row = spool_row(
        "call",
        messages=messages,
        tools=orjson.dumps(TOOLS),
        rejected=orjson.dumps(answer("I guess that one.")),
    )
    (written,) = render([row], [TRAIN]).tables["train"].to_pylist()
    start = written["assistant_mask"].index(1)
    assert written["input_ids"][:start] == written["rejected_ids"][:start]
    assert written["input_ids"][start:] != written["rejected_ids"][start:]
