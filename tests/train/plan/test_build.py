import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load_config
from configs.schema import RunConfig
from tests.train.plan.conftest import Changed
from train.plan.advice import Device
from train.plan.build import Plan, Planner, build_plan, count_tokens
from train.plan.data_facts import DataFacts, read_data_facts
from train.plan.memory import GIB
from train.plan.show import plan_to_json

ROOT = Path(__file__).parents[3]
FACTS = DataFacts(num_rows=1000, num_tokens=500_000, num_sequences=130, supervised_share=0.1)


@pytest.fixture(scope="module")
def plan(legal: RunConfig) -> Plan:
    return build_plan(legal, budget_gib=24)


@pytest.mark.parametrize("name", ["legal", "medical", "support"])
def test_the_24b_variants_fit_the_cards_of_24_gb(name: str) -> None:
    plan = build_plan(load_config(ROOT / "configs" / f"{name}.yaml"), budget_gib=24)
    assert plan.fits
    assert all(plan.runs_on(speed) for speed in plan.speeds)


def test_json_has_the_promised_keys_and_plain_values(plan: Plan) -> None:
    found = json.loads(json.dumps(plan_to_json(plan)))
    promised = "fits budget_gib peak_gib breakdown max_length tokens_per_second hours disk_gib"
    assert set(promised.split()) <= found.keys()
    assert found["fits"] is True
    assert found["budget_gib"] == 24
    assert found["tokens_per_second"].keys() == {speed.card.name for speed in plan.speeds}
    # Without prepared rows nobody knows how many tokens an epoch has.
    assert set(found["hours"].values()) == {None}
    assert found["unknown"] == "known after `tunery prepare`"


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_parts_sum_to_the_peak(legal: RunConfig, device: Device) -> None:
    found = plan_to_json(build_plan(legal, budget_gib=24, device=device))
    assert sum(found["breakdown"].values()) == pytest.approx(found["peak_gib"])
    assert all(size >= 0 for size in found["breakdown"].values())


def test_the_weights_are_those_of_the_notes_of_the_format(plan: Plan) -> None:
    assert plan.memory.parts["weights_nf4"] / GIB == pytest.approx(10.7, abs=0.05)
    # Embedding and head.
    assert plan.memory.parts["weights_bf16"] / GIB == pytest.approx(2.5, abs=0.01)
    assert plan.memory.parts["lora"] == 2 * 184_811_520


def test_images_bring_the_vision_tower_onto_the_card(legal: RunConfig, plan: Plan) -> None:
    with_images = build_plan(legal, budget_gib=24, has_images=True)
    tower = with_images.memory.parts["weights_bf16"] - plan.memory.parts["weights_bf16"]
    assert tower == 2 * plan.architecture.num_vision_weights
    assert tower / GIB == pytest.approx(0.82, abs=0.02)


def test_the_longest_sequence_fits_and_a_longer_one_does_not(legal: RunConfig, plan: Plan) -> None:
    planner = Planner(plan.architecture, "cuda", 24 * GIB)
    assert planner.fits(legal.train, plan.max_length)
    assert not planner.fits(legal.train, plan.max_length + 64)
    assert plan.max_length < plan.max_length_relieved < plan.architecture.max_positions


def test_the_model_bounds_the_longest_sequence(legal: RunConfig) -> None:
    assert build_plan(legal, budget_gib=1000).max_length == 131_072


def test_the_largest_micro_batch_fits_and_divides_the_batch(
    legal: RunConfig, changed: Changed
) -> None:
    plan = build_plan(legal, budget_gib=48)
    assert legal.train.batch_rows % plan.most_rows == 0
    bigger = changed(micro_batch_rows=2 * plan.most_rows)
    assert not build_plan(bigger, budget_gib=48).fits
    assert build_plan(changed(micro_batch_rows=plan.most_rows), budget_gib=48).fits


def test_a_small_card_gets_changes_until_it_fits(legal: RunConfig) -> None:
    plan = build_plan(legal, budget_gib=16)
    assert not plan.fits
    assert any(change.fits and change.keeps_result for change in plan.changes)
    peaks = [plan.memory.peak / GIB, *(change.peak for change in plan.changes)]
    saved = [before - after for before, after in pairwise(peaks)]
    assert [change.saves for change in plan.changes] == pytest.approx(saved)


def test_a_shorter_length_is_the_last_advice(legal: RunConfig) -> None:
    last = build_plan(legal, budget_gib=13.5).changes[-1]
    assert last.told.startswith("model.max_length: ")
    assert last.fits
    assert not last.keeps_result


def test_nothing_fits_a_card_smaller_than_the_weights(legal: RunConfig) -> None:
    plan = build_plan(legal, budget_gib=8)
    assert (plan.max_length, plan.max_length_relieved, plan.most_rows) == (0, 0, 0)
    assert not any(change.fits for change in plan.changes)


def test_prepared_rows_give_hours_and_a_smaller_head(legal: RunConfig, plan: Plan) -> None:
    known = build_plan(legal, budget_gib=24, data=FACTS)
    speed = known.speeds[0]
    assert known.hours(speed) == pytest.approx(500_000 / speed.estimate / 3600)
    assert speed.estimate > plan.speeds[0].estimate


def test_tokens_of_all_steps(legal: RunConfig, changed: Changed) -> None:
    steps = {"num_epochs": None, "num_steps": 10}
    assert count_tokens(legal, FACTS) == (500_000, "")
    assert count_tokens(changed(num_epochs=2.5), FACTS) == (1_250_000, "")
    assert count_tokens(changed(**steps), FACTS) == (10 * 16 * 500, "")
    assert count_tokens(changed(**steps), None)[0] is None
    packed = changed(**steps, packing=True)
    assert count_tokens(packed, None) == (10 * 16 * 4096, "")
    assert count_tokens(packed, FACTS)[0] == pytest.approx(10 * 16 * 500_000 / 130)


def test_preference_rows_count_twice(changed: Changed, plan: Plan) -> None:
    pairs = build_plan(changed(method="preference"), budget_gib=24)
    assert pairs.memory.parts["activations"] > 1.9 * plan.memory.parts["activations"]
    assert any("counts twice" in note for note in pairs.notes)


def write_facts(run: Path, text: str) -> None:
    (run / "data").mkdir(exist_ok=True)
    (run / "data" / "facts.json").write_text(text)


def test_facts_are_read_where_data_has_been_prepared(legal: RunConfig, tmp_path: Path) -> None:
    assert read_data_facts(tmp_path, legal.model) is None
    facts = {
        "model": legal.model.name,
        "max_length": legal.model.max_length,
        "num_rows": {"train": 1000, "test": 1},
        "num_tokens": {"train": 500_000, "test": 1},
        "packing": {"num_packs": 130, "capacity": 4096},
        "supervised_share": 0.1,
    }
    write_facts(tmp_path, json.dumps(facts))
    assert read_data_facts(tmp_path, legal.model) == FACTS
    shorter = legal.model.model_copy(update={"max_length": 512})
    assert read_data_facts(tmp_path, shorter) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_damaged_facts_are_told(legal: RunConfig, tmp_path: Path, text: str) -> None:
    write_facts(tmp_path, text)
    with pytest.raises(UserError, match=r"(?s)facts of the prepared rows are damaged.*prepare"):
        read_data_facts(tmp_path, legal.model)


def test_a_plan_loads_no_framework() -> None:
    program = """
import sys
from itertools import pairwise
from pathlib import Path
from rich.console import Console
from configs.load import load_config
from train.plan.advice import Device
from train.plan.build import build_plan
from train.plan.show import print_plan
print_plan(build_plan(load_config(Path("configs/legal.yaml")), budget_gib=24), Console())
heavy = {"torch", "transformers", "numpy", "huggingface_hub", "datasets"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
