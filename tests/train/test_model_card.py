"""The card of a run whose rows went through the real prepare stage, as the hub reads it."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData

from configs.data_schema import (
    HubDataSource,
    MixturePart,
    MixtureSource,
    PresetSource,
    SingleSource,
)
from configs.errors import UserError
from configs.run_directory import RunDirectory, StageRecord, create_run
from configs.schema import HubModel, RunConfig
from evals.build_result import build_result
from evals.evidence import TaskEvidence
from evals.gather import Gathered
from tests.data.preparing import PrepareRows, questions
from tests.evals.report.factories import build_evidence
from train.model_card import CARD_FILE, card_header, inline_text, trained_sources, write_card

HOSTILE = "a | b\n# <script>alert(1)</script> [x](http://evil) `c` {{ 7 * 7 }} & it's"
VERSIONS = {"tunery": "0.1.0", "torch": "2.13.0", "transformers": "5.17.0", "peft": "0.21.2"}


def done(after: Sequence[str] = (), made: str = "", **facts: object) -> StageRecord:
    """A finished stage that has read what the stages `after` made, and made `made`."""
    return StageRecord(
        state="done",
        inputs={"after": {name: f"of {name}" for name in after}},
        inputs_sha256="ab" * 32,
        outputs={},
        outputs_sha256=made,
        facts=facts,
        versions=VERSIONS,
        seed=17,
        seconds=93.4,
    )


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path) -> RunDirectory:
    """A run that is trained and merged, and not evaluated."""
    prepare = PrepareRows(tmp_path, tiny_checkpoint)
    source = prepare.config().data.source.model_copy(
        update={"licence": "CC-BY-4.0", "attribution": HOSTILE}
    )
    rows = questions(40)
    rows[3]["messages"][0]["content"] += " Write to jane.roe@example.org."  # type: ignore[index]
    prepare(rows, source=source)
    config = prepare.config(source=source).model_copy(update={"description": HOSTILE})
    run = create_run(config, tmp_path / "runs")
    shutil.copytree(prepare.folder, run.path / "data")
    shutil.copytree(tiny_checkpoint, run.path / "merged")
    run.write_record("prepare", done(made="of prepare"))
    run.write_record(
        "train",
        done(
            after=["prepare"],
            made="of train",
            num_steps=3,
            num_tokens=12_345,
            validation_loss=1.23456,
            device="cpu",
            resumed_from_step=0,
        ),
    )
    write_merge(run, ["bf16", "q8_0"])
    return run


def write_merge(
    run: RunDirectory, formats: Sequence[str], *, architecture: str = "LlamaForCausalLM"
) -> None:
    """Leave the record that the merge stage leaves."""
    artefacts = [
        {
            "format": name,
            "path": "merged" if name == "bf16" else f"artefacts/minimal.{name}.gguf",
            "num_bytes": 1_234_567_890,
            "loss": 0.98765 if name == "bf16" else None,
        }
        for name in formats
    ]
    facts = {
        "architectures": [architecture],
        "num_merged_tensors": 14,
        "artefacts": artefacts,
        "reference_loss": 0.9871,
    }
    run.write_record("merge", done(after=["train"], made="of merge", **facts))


def evaluate(run: RunDirectory, *, guard: Sequence[TaskEvidence] | None = None) -> None:
    """Leave what the evaluate stage leaves: 20 of 30 right, of the baseline 5."""
    config = run.load_config()
    outside = [build_guard("Formats", 30, (12, 9))] if guard is None else guard
    evidence = [
        build_evidence("a task", num=30, right=(5, 20), sides=(f"Base {HOSTILE}", config.name)),
        *outside,
    ]
    found = Gathered(tasks=[one.task for one in evidence], evidence=evidence)
    result = build_result(found, config=config)
    (run.path / "evals").mkdir(exist_ok=True)
    (run.path / "evals" / "comparison.json").write_text(json.dumps(result))
    run.write_record("evaluate", done(after=["prepare", "merge"], verdict=result["verdict"]))


def build_guard(name: str, num: int, right: tuple[int, int]) -> TaskEvidence:
    """Questions outside the domain, so many right of the base's and of the variant's answers."""
    return build_evidence(name, num=num, role="guard", metric="checks", right=right)


def read(run: RunDirectory) -> str:
    return write_card(run).read_text(encoding="utf-8")


def table_rows(text: str, head: str) -> list[list[str]]:
    """Cells of the table whose head row begins with `head`; as many in every row, or it fails."""
    lines = text[text.index(f"| {head} |") :].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert len({len(row) for row in rows}) == 1
    return rows[2:]


def card_data(card: ModelCard) -> ModelCardData:
    assert isinstance(card.data, ModelCardData)
    return card.data


def test_the_hub_reads_the_header(run: RunDirectory) -> None:
    evaluate(run)
    card = ModelCard(read(run))
    header = card_data(card).to_dict()  # type: ignore[no-untyped-call]
    assert header.pop("model-index")
    assert header == {
        "base_model": "tiny",
        "library_name": "peft",
        "license": "mit",
        "pipeline_tag": "text-generation",
        "tags": ["tunery", "lora", "qlora", "sft"],
    }
    results = card_data(card).eval_results
    assert results is not None
    (result,) = results
    assert result.dataset_name == "a task"
    assert result.metric_type == "exact_match"
    assert result.metric_value == pytest.approx(20 / 30, abs=1e-6)
    assert card.text.startswith("\n# minimal\n")


def test_no_path_of_this_machine_stands_in_the_card(
    run: RunDirectory, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    evaluate(run)
    # Escaped, a path would be one all the same.
    text = read(run).replace("\\", "")
    for path in (tmp_path, tiny_checkpoint):
        assert str(path) in run.config_file.read_text()
        assert str(path) not in text
    for path in (Path.home(), Path.cwd()):
        assert str(path) not in text


def test_the_same_run_gives_the_same_card(run: RunDirectory) -> None:
    assert read(run) == read(run)
    assert (run.path / CARD_FILE).exists()


def test_scores_come_with_interval_and_verdict_once_there_are_any(run: RunDirectory) -> None:
    assert "Not evaluated yet." in read(run)
    assert "model-index" not in read(run)
    evaluate(run)
    text = read(run)
    assert "Not evaluated yet." not in text
    assert "**Better than the baseline.**" in text
    rows = table_rows(text, "model")
    assert [row[1:] for row in rows] == [
        ["zero-shot", "66.7 %", "48.8 to 80.8 %"],
        ["zero-shot", "0.0 %", "0.0 to 11.4 %"],
        ["4 examples", "16.7 %", "7.3 to 33.6 %"],
    ]
    assert "better prompt: +50.0 points, 95 % interval +" in text


def test_what_the_adapter_has_cost_elsewhere_stands_in_a_table_of_its_own(
    run: RunDirectory,
) -> None:
    evaluate(
        run, guard=[build_guard("Formats", 30, (12, 9)), build_guard(HOSTILE, 1200, (600, 600))]
    )
    text = read(run)
    first, second, mean = table_rows(text, "task")
    minus = "\N{MINUS SIGN}"
    assert first == ["Formats", "30", "40.0 %", "30.0 %", f"{minus}10.0"]
    assert second[1:] == ["1,200", "50.0 %", "50.0 %", "+0.0"]
    assert mean == ["mean", "", "45.0 %", "40.0 %", f"{minus}5.0"]
    assert re.search(rf"\(lower bound of the difference {minus}\d\d\.\d points; that it", text)
    assert "that it holds is not shown within 5 points" in text
    # Its rows are no score of the domain.
    assert len(table_rows(text, "model")) == 3


def test_a_guard_set_that_holds_is_said_to_and_one_that_was_not_asked_is_not_mentioned(
    run: RunDirectory,
) -> None:
    # One task is worse, so there is no promotion, but the mean holds.
    guard = [build_guard("Formats", 400, (400, 388)), build_guard("Languages", 400, (400, 400))]
    evaluate(run, guard=guard)
    text = read(run)
    assert "it holds within 5 points" in text
    assert "is not shown" not in text
    evaluate(run, guard=[])
    assert "Outside its domain" not in read(run)


def test_scores_of_an_evaluation_that_is_not_done_are_not_told(run: RunDirectory) -> None:
    evaluate(run)
    run.write_record("evaluate", StageRecord(state="running"))
    assert "Not evaluated yet." in read(run)


def test_scores_of_another_training_are_not_told(run: RunDirectory) -> None:
    evaluate(run)
    assert "**Better" in read(run)
    train = run.read_manifest()["train"]
    run.write_record("train", StageRecord(**{**train, "outputs_sha256": "of another"}))
    text = read(run)
    assert "Not evaluated yet." in text
    assert "`tunery merge minimal` makes of both" in text


def test_data_stand_with_licence_and_counts(run: RunDirectory) -> None:
    facts = json.loads((run.path / "data" / "facts.json").read_text())
    text = read(run)
    counts = [str(facts["num_rows"][side]) for side in ("train", "validation", "test")]
    assert table_rows(text, "source") == [["rows.jsonl", "CC-BY-4.0", *counts]]
    assert "1 rows hold personal data, which it may repeat" in text
    assert "whose licence is MIT" in text


def test_hyperparameters_and_versions_stand_in_it(run: RunDirectory) -> None:
    text = read(run)
    train = run.load_config().train
    assert f"rank {train.lora.rank}, alpha {train.lora.alpha}" in text
    assert f"learning rate {train.learning_rate:g} ({train.schedule}" in text
    assert "| tokens | 12,345 |" in text
    assert "| validation loss | 1.235 |" in text
    assert "| time | 1 min 33 s |" in text
    assert "tunery 0.1.0, torch 2.13.0, transformers 5.17.0, peft 0.21.2" in text
    assert "ab" * 32 in text


def test_texts_of_others_act_as_no_markup(run: RunDirectory) -> None:
    evaluate(run)
    text = read(run)
    assert "<script>" not in text
    assert "[x](" not in text
    assert "\n# <" not in text
    # Description, attribution, and the baseline's name in two rows.
    assert text.count("&lt;script>") == 4
    assert inline_text("a\n\n#  b|c") == r"a \#b\|c".replace("#b", "# b")


def test_the_programs_in_it_run(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = re.findall(r"```python\n(.*?)```", read(run), re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        compile(program, "card", "exec")
    monkeypatch.chdir(run.path)
    exec(programs[1], {})
    assert capsys.readouterr().out


def test_without_the_merged_model_nothing_is_promised(run: RunDirectory) -> None:
    shutil.rmtree(run.path / "merged")
    run.write_record("merge", StageRecord(state="failed", error="no"))
    text = read(run)
    assert "merged/" not in text
    assert "```python" not in text
    assert "`tunery merge minimal` makes of both" in text


def test_artefacts_are_listed_with_size_and_loss(run: RunDirectory) -> None:
    text = read(run)
    assert "| `merged` | 1.23 GB | 0.988 |" in text
    assert "`artefacts/minimal.q8_0.gguf` (served and measured) | 1.23 GB | not measured |" in text
    assert "| base and adapter, unmerged | | 0.987 |" in text


def test_a_merge_without_bf16_weights_promises_none(run: RunDirectory) -> None:
    shutil.rmtree(run.path / "merged")
    write_merge(run, ["q8_0"])
    text = read(run)
    assert 'from_pretrained("merged"' not in text
    assert "tunery serve minimal" in text


def test_rows_prepared_since_the_training_are_not_told_as_its_own(run: RunDirectory) -> None:
    run.write_record("prepare", done(made="of another preparation"))
    with pytest.raises(UserError, match="prepared anew since the training"):
        write_card(run)


def test_a_run_that_is_not_trained_has_no_card(run: RunDirectory) -> None:
    run.write_record("train", StageRecord(state="failed", error="no"))
    with pytest.raises(UserError, match="stage train has not finished"):
        write_card(run)
    assert not (run.path / CARD_FILE).exists()


def hub_facts(label: str, revision: str | None) -> dict[str, Any]:
    return {
        "label": label,
        "revision": revision,
        "licence": "MIT",
        "attribution": "",
        "is_evaluation_task": False,
        "num_rows": {"train": 1, "validation": 1, "test": 1},
    }


def with_sources(config: RunConfig, *sources: SingleSource) -> RunConfig:
    parts = [MixturePart(source=source) for source in sources]
    mixture = MixtureSource(kind="mixture", parts=parts)
    return config.model_copy(update={"data": config.data.model_copy(update={"source": mixture})})


def test_data_sets_of_the_hub_are_named_and_those_in_folders_are_not(run: RunDirectory) -> None:
    config = with_sources(
        run.load_config(),
        HubDataSource(kind="hub", id="owner/rows"),
        PresetSource(kind="preset", name="pubmedqa"),
        HubDataSource(kind="hub", id="/home/somebody/data/rows"),
    )
    data = {
        "sources": [
            hub_facts("owner/rows", "abc1234"),
            hub_facts("pubmedqa", "def5678"),
            hub_facts("/home/somebody/data/rows", None),
            hub_facts("an evaluation set", None) | {"is_evaluation_task": True},
        ]
    }
    sources = list(trained_sources(config, data))
    assert [one.hub_id for one in sources] == ["owner/rows", "qiaojin/PubMedQA", None]
    assert [one.label for one in sources] == ["owner/rows", "pubmedqa", "rows"]
    assert card_header(config, sources, None).datasets == ["owner/rows", "qiaojin/PubMedQA"]


def test_a_base_of_the_hub_is_named_by_its_repository(run: RunDirectory) -> None:
    config = run.load_config()
    source = HubModel(kind="hub", id="owner/base")
    model = config.model.model_copy(update={"source": source, "licence": "Some-Licence-2"})
    run.config_file.unlink()
    run = create_run(config.model_copy(update={"model": model}), run.path.parent)
    write_merge(run, ["q8_0"], architecture="Mistral3ForConditionalGeneration")
    card = ModelCard(read(run))
    assert card_data(card).base_model == "owner/base"
    assert card_data(card).license == "other"
    assert card_data(card).license_name == "some-licence-2"
    assert 'AutoModelForImageTextToText.from_pretrained("owner/base", dtype=' in card.text
    assert 'PeftModel.from_pretrained(base, "adapter")' in card.text
