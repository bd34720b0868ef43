import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data.conversation import Conversation
from data.tokens.load_tokenizer import load_tokenizer
from data.tokens.template import load_renderer
from tests.tiny_model import CHAT_TEMPLATE
from tests.train.gates.tiny_adapter import TinyRun
from train.gates.folder_prompts import FolderPrompts
from train.gates.prompt import (
    TOOL,
    PromptCase,
    build_prompt_cases,
    first_difference,
    judge_prompt,
)
from train.gates.results import GateResult

# Marks its answers itself, and takes tools and calls.
TOOL_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}"
    "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}"
    "{{ '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def artefact(tiny_run: TinyRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.checkpoint, tmp_path / "artefact"))


@pytest.fixture
def cases(tiny_run: TinyRun) -> list[PromptCase]:
    return build_prompt_cases(tiny_run.rows, load_renderer(load_tokenizer(tiny_run.checkpoint)))


def judge(cases: list[PromptCase], folder: Path) -> GateResult:
    return judge_prompt(cases, FolderPrompts(folder), name="merged")


def test_cases_are_rows_with_and_without_system_turn_and_growing_questions(
    tiny_run: TinyRun, cases: list[PromptCase]
) -> None:
    told = " / ".join(case.what for case in cases)
    assert "without system turn" in told
    assert "with a system turn" in told
    # The template leaves tools out, so training would refuse such a row.
    assert "tool" not in told
    growing = [case for case in cases if case.grows]
    assert len(growing) == 2
    assert len(cases[-3].ids) < len(growing[0].ids) < len(growing[1].ids)
    assert cases[0].ids == tiny_run.rows[0].prompt_ids.tolist()
    assert all(case.conversation.messages[-1]["role"] == "user" for case in cases)


def test_the_base_models_own_files_pass(cases: list[PromptCase], artefact: Path) -> None:
    result = judge(cases, artefact)
    assert result["outcome"] == "passed"
    assert result["figures"]["num_alike"] == len(cases) > 10


def test_tools_and_calls_are_compared_where_training_takes_them(
    tiny_run: TinyRun, artefact: Path
) -> None:
    (artefact / "chat_template.jinja").write_text(TOOL_TEMPLATE)
    call = {
        "id": "a1b2c3d4e",
        "type": "function",
        "function": {"name": "look_up", "arguments": '{"term": "é"}'},
    }
    turns = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "found", "tool_call_id": "a1b2c3d4e"},
        {"role": "assistant", "content": "A"},
    ]
    calling = Conversation(id="calls", messages=tuple(turns), tools=(TOOL,))  # type: ignore[arg-type]
    rows = [replace(tiny_run.rows[0], conversation=calling), *tiny_run.rows]
    cases = build_prompt_cases(rows, load_renderer(load_tokenizer(artefact)))
    told = [case.what for case in cases]
    assert "row calls" in told
    assert any("with a tool" in what for what in told)
    assert judge(cases, artefact)["outcome"] == "passed"
    (artefact / "chat_template.jinja").write_text(TOOL_TEMPLATE.replace("tools | tojson", "'no'"))
    assert judge(cases, artefact)["outcome"] == "failed"


def test_a_lost_template_fails(cases: list[PromptCase], artefact: Path) -> None:
    (artefact / "chat_template.jinja").unlink()
    result = judge(cases, artefact)
    assert result["outcome"] == "failed"
    assert result["figures"]["num_alike"] == 0
    assert "no prompt can be made" in result["told"]


def test_the_name_of_a_template_instead_of_one_fails(
    cases: list[PromptCase], artefact: Path
) -> None:
    """As a converter leaves it that knows templates by name: any prompt is that name."""
    (artefact / "chat_template.jinja").write_text("mistral-v7-tekken")
    result = judge(cases, artefact)
    assert result["outcome"] == "failed"
    assert "token 1 differs" in result["told"]


def test_prompts_that_do_not_grow_are_told_even_where_nothing_else_is(
    cases: list[PromptCase], artefact: Path
) -> None:
    class SamePrompt:
        def prompt_ids(self, conversation: Conversation) -> list[int]:
            return cases[-3].ids

    (first, second, third) = cases[-3:]
    alike = [one._replace(ids=first.ids) for one in (first, second, third)]
    result = judge_prompt(alike, SamePrompt(), name="merged")
    assert result["figures"]["num_alike"] == 3
    assert result["outcome"] == "failed"
    assert "a prompt of more words has no more tokens" in result["told"]


def test_another_template_fails(cases: list[PromptCase], artefact: Path) -> None:
    file = artefact / "chat_template.jinja"
    file.write_text(CHAT_TEMPLATE.replace("named SmolLM", "named Tiny"))
    result = judge(cases, artefact)
    # Rows that bring their own system turn have no such words in them.
    assert 0 < result["figures"]["num_alike"] < len(cases)
    assert result["outcome"] == "failed"


def test_a_tokenizer_that_splits_otherwise_fails(cases: list[PromptCase], artefact: Path) -> None:
    file = artefact / "tokenizer.json"
    told = json.loads(file.read_text())
    told["model"]["merges"] = told["model"]["merges"][: len(told["model"]["merges"]) // 2]
    file.write_text(json.dumps(told))
    assert judge(cases, artefact)["outcome"] == "failed"


def test_a_doubled_bos_fails_with_its_place(cases: list[PromptCase], artefact: Path) -> None:
    file = artefact / "chat_template.jinja"
    file.write_text("{{ bos_token }}" + CHAT_TEMPLATE)
    assert "token 2 differs: training has 1 " in judge(cases, artefact)["told"]


@pytest.mark.parametrize(
    ("wanted", "found", "told"),
    [
        ([1, 2, 3], [1, 2, 3], "no difference"),
        ([1, 2, 3], [1, 2], "token 3 differs: training has … 2 3 end of 3 tokens, the artefact"),
        ([1], [], "token 1 differs: training has 1 end of 1 tokens, the artefact  end of 0"),
    ],
)
def test_the_first_difference_in_words(wanted: list[int], found: list[int], told: str) -> None:
    assert first_difference(wanted, found).startswith(told)
