import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.errors import UserError
from configs.schema import ArtefactFormat
from tests.train.gates.conftest import Judged
from tests.train.gates.tiny_adapter import (
    ADAPTER_FILE,
    TinyRun,
    change_adapter,
    train_adapter,
)
from tests.train.merging import adapters
from train.gates.open_model import open_checkpoint, open_with_adapters
from train.gates.results import GateResult
from train.gates.run import Measured, check_passed, judge, measure
from train.merging.adapters import WeightedAdapter
from train.nf4_checkpoint import quantize_checkpoint

GATES = ["logits", "acts", "prompt", "loss"]


def judge_folder(
    folder: Path, run: TinyRun, judged: Judged, *, format: ArtefactFormat = "bf16"
) -> dict[str, GateResult]:
    with open_checkpoint(folder) as scorer:
        results = judge(
            scorer,
            name="merged",
            format=format,
            rows=run.rows,
            cases=judged.cases,
            base=judged.base,
            reference=judged.reference,
        )
    assert [result["gate"] for result in results] == GATES
    return {result["gate"]: result for result in results}


def outcomes(results: dict[str, GateResult]) -> dict[str, str]:
    return {gate: result["outcome"] for gate, result in results.items()}


def merge(run: TinyRun, folder: Path, adapter: Path | None = None) -> Path:
    adapters.merge(run.checkpoint, WeightedAdapter(adapter or run.adapter), to=folder)
    return folder


def shrink_adapter(run: TinyRun, folder: Path) -> Path:
    """An adapter whose updates are lost in rounding."""
    return change_adapter(
        run.adapter, folder, lambda name, tensor: tensor * 1e-4 if "lora_B" in name else tensor
    )


def test_the_adapter_of_these_tests_changes_the_base(judged: Judged) -> None:
    assert judged.reference.scores.loss < judged.base.scores.loss - 1
    assert len(judged.cases) > 10


def test_a_merge_passes_all_gates(tiny_run: TinyRun, judged: Judged, tmp_path: Path) -> None:
    results = judge_folder(merge(tiny_run, tmp_path / "merged"), tiny_run, judged)
    assert set(outcomes(results).values()) == {"passed"}
    check_passed(list(results.values()))
    assert results["acts"]["figures"]["share"] == pytest.approx(1, abs=0.05)


def test_a_merge_in_nf4_passes_as_nf4(tiny_run: TinyRun, judged: Judged, tmp_path: Path) -> None:
    quantize_checkpoint(merge(tiny_run, tmp_path / "merged"), tmp_path / "nf4")
    results = judge_folder(tmp_path / "nf4", tiny_run, judged, format="nf4")
    assert set(outcomes(results).values()) == {"passed"}
    assert results["logits"]["figures"]["kl_mean"] > 1e-4


@pytest.mark.parametrize("format", ["bf16", "w4a16"])
def test_an_adapter_left_out_fails_at_every_width(
    format: ArtefactFormat, tiny_run: TinyRun, judged: Judged
) -> None:
    results = judge_folder(tiny_run.checkpoint, tiny_run, judged, format=format)
    assert outcomes(results) == {
        "logits": "failed",
        "acts": "failed",
        "prompt": "passed",
        "loss": "failed",
    }


def test_the_rounding_of_a_base_without_adapter_is_not_taken_for_the_adapter(
    tiny_run: TinyRun, judged: Judged, tmp_path: Path
) -> None:
    quantize_checkpoint(tiny_run.checkpoint, tmp_path / "nf4")
    results = judge_folder(tmp_path / "nf4", tiny_run, judged, format="nf4")
    assert results["acts"]["outcome"] == "failed"
    assert abs(results["acts"]["figures"]["share"]) < 0.3


def test_a_shard_of_another_model_fails(tiny_run: TinyRun, judged: Judged, tmp_path: Path) -> None:
    merged = merge(tiny_run, tmp_path / "merged")
    other = train_adapter(tiny_run.checkpoint, tmp_path / "other", num_steps=4, seed=5)
    wrong = load_file(merge(tiny_run, tmp_path / "wrong", other) / "model.safetensors")
    weights = load_file(merged / "model.safetensors")
    names = sorted(weights)
    swapped = weights | {name: wrong[name] for name in names[len(names) // 2 :]}
    save_file(swapped, merged / "model.safetensors", metadata={"format": "pt"})
    found = outcomes(judge_folder(merged, tiny_run, judged))
    assert found["logits"] == found["loss"] == "failed"
    assert found["prompt"] == "passed"


def test_a_shard_of_another_seed_fails(tiny_run: TinyRun, judged: Judged, tmp_path: Path) -> None:
    merged = merge(tiny_run, tmp_path / "merged")
    weights = load_file(merged / "model.safetensors")
    torch.manual_seed(0)
    for name in sorted(weights)[: len(weights) // 2]:
        permuted = weights[name].flatten()[torch.randperm(weights[name].numel())]
        weights[name] = permuted.view_as(weights[name])
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    found = outcomes(judge_folder(merged, tiny_run, judged, format="w4a16"))
    assert found["logits"] == found["loss"] == "failed"


def test_updates_that_rounding_swallowed_fail(
    tiny_run: TinyRun, judged: Judged, tmp_path: Path
) -> None:
    tiny = shrink_adapter(tiny_run, tmp_path / "adapter")
    merged = merge(tiny_run, tmp_path / "merged", tiny)
    found = outcomes(judge_folder(merged, tiny_run, judged))
    assert found["logits"] == found["acts"] == "failed"


def test_where_the_adapter_itself_is_as_small_the_gate_only_warns(
    tiny_run: TinyRun, judged: Judged, tmp_path: Path
) -> None:
    tiny = shrink_adapter(tiny_run, tmp_path / "adapter")
    with open_with_adapters(tiny_run.checkpoint, [(tiny, 1.0)], base="bf16") as scorer:
        reference = measure(scorer, tiny_run.rows)
    merged = merge(tiny_run, tmp_path / "merged", tiny)
    results = judge_folder(merged, tiny_run, judged._replace(reference=reference))
    assert outcomes(results) == {
        "logits": "passed",
        "acts": "warning",
        "prompt": "passed",
        "loss": "passed",
    }
    assert "train longer" in results["acts"]["told"]
    check_passed(list(results.values()))


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_wrong_scale_fails(
    factor: float, tiny_run: TinyRun, judged: Judged, tmp_path: Path
) -> None:
    scaled = change_adapter(
        tiny_run.adapter,
        tmp_path / "adapter",
        lambda name, tensor: tensor * factor if "lora_B" in name else tensor,
    )
    merged = merge(tiny_run, tmp_path / "merged", scaled)
    assert outcomes(judge_folder(merged, tiny_run, judged))["logits"] == "failed"


def test_an_update_on_another_layer_fails(
    tiny_run: TinyRun, judged: Judged, tmp_path: Path
) -> None:
    tensors = load_file(tiny_run.adapter / ADAPTER_FILE)

    def other_layer(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if "q_proj" not in name and "down_proj" not in name:
            return tensor
        swapped = name.replace(".0.", ".#.").replace(".1.", ".0.").replace(".#.", ".1.")
        return tensors[swapped]

    adapter = change_adapter(tiny_run.adapter, tmp_path / "adapter", other_layer)
    merged = merge(tiny_run, tmp_path / "merged", adapter)
    assert outcomes(judge_folder(merged, tiny_run, judged))["logits"] == "failed"


def test_a_last_layer_that_was_not_merged_fails(
    tiny_run: TinyRun, judged: Judged, tmp_path: Path
) -> None:
    merged = merge(tiny_run, tmp_path / "merged")
    weights = load_file(merged / "model.safetensors")
    base = load_file(tiny_run.checkpoint / "model.safetensors")
    weights |= {name: base[name] for name in weights if ".layers.1." in name}
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    found = outcomes(judge_folder(merged, tiny_run, judged))
    assert found["logits"] == found["loss"] == "failed"


def test_a_lost_template_fails_the_prompt_gate_alone(
    tiny_run: TinyRun, judged: Judged, tmp_path: Path
) -> None:
    merged = merge(tiny_run, tmp_path / "merged")
    (merged / "chat_template.jinja").unlink()
    results = judge_folder(merged, tiny_run, judged)
    assert outcomes(results) == dict.fromkeys(GATES, "passed") | {"prompt": "failed"}
    assert "no prompt can be made" in results["prompt"]["told"]


def test_a_doubled_bos_fails_the_prompt_gate_with_its_place(
    tiny_run: TinyRun, judged: Judged, tmp_path: Path
) -> None:
    merged = merge(tiny_run, tmp_path / "merged")
    file = merged / "chat_template.jinja"
    file.write_text("{{ bos_token }}" + file.read_text())
    told = judge_folder(merged, tiny_run, judged)["prompt"]["told"]
    assert "token 2 differs: training has 1 " in told
    assert "the artefact 1 1 " in told


def test_failed_gates_become_one_error_with_their_figures(
    tiny_run: TinyRun, judged: Judged
) -> None:
    results = judge_folder(tiny_run.checkpoint, tiny_run, judged)
    with pytest.raises(UserError) as error:
        check_passed(list(results.values()), where="runs/colours")
    told = str(error.value)
    assert "merged, gate logits" in told
    assert "merged, gate acts" in told
    assert "gate prompt" not in told
    assert "kl_mean" in told and " against 0.00" in told
    assert "runs/colours" in told


def test_what_the_gates_found_can_be_written_as_json(tiny_run: TinyRun, judged: Judged) -> None:
    results = list(judge_folder(tiny_run.checkpoint, tiny_run, judged).values())
    assert json.loads(json.dumps(results)) == results


def test_measuring_answers_no_more_rows_than_were_asked_for(tiny_run: TinyRun) -> None:
    with open_checkpoint(tiny_run.checkpoint) as scorer:
        measured = measure(scorer, tiny_run.rows, num_answers=3, max_tokens=5)
    assert isinstance(measured, Measured)
    assert [len(answer) <= 5 for answer in measured.answers] == [True] * 3
