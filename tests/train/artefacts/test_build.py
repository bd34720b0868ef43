import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from configs.errors import UserError
from configs.schema import ArtefactFormat, FurtherAdapter
from serve import llama_scorer
from tests.train.artefacts.merge_stage import build_config, build_run, open_served, run_stage
from tests.train.gates.tiny_adapter import train_adapter
from tests.train.merging.adapters import write_adapter
from train.artefacts import build
from train.artefacts.make import disk_bytes
from train.artefacts.steps import Steps
from train.artefacts.yardstick import Merge, take_yardstick
from train.gates import scoring
from train.merge_report.facts import MergeFacts
from train.merging.adapters import WeightedAdapter
from train.merging.merged_weights import MergedWeights
from train.weight_files import list_shards, read_tensor, tensor_names

FORMATS: list[ArtefactFormat] = ["bf16", "q4_k_m", "w4a16", "nf4"]


@pytest.fixture(scope="session")
def built_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("merge-stage"))


@pytest.fixture
def run(built_run: Path, tmp_path: Path) -> Path:
    return copy_run(built_run, tmp_path)


@pytest.fixture(scope="module")
def f16_run(built_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After a merge into one GGUF alone."""
    run = copy_run(built_run, tmp_path_factory.mktemp("f16"))
    run_stage(build_config(run, artefacts=["f16"], hosted=True, base="bf16"), run)
    return run


def copy_run(built_run: Path, folder: Path) -> Path:
    (folder / "checkpoint").symlink_to(built_run.parent / "checkpoint")
    return Path(shutil.copytree(built_run, folder / "run"))


def digests(run: Path, *folders: str) -> dict[str, str]:
    files = [f for folder in folders for f in sorted((run / folder).rglob("*")) if f.is_file()]
    return {
        str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def outcomes(facts: MergeFacts) -> dict[str, set[str]]:
    return {one["format"]: {gate["outcome"] for gate in one["gates"]} for one in facts["artefacts"]}


def test_every_kind_of_artefact_carries_adapters_by_weight(run: Path, tmp_path: Path) -> None:
    other = train_adapter(run.parent / "checkpoint", tmp_path / "other", num_steps=8, seed=5)
    config = build_config(
        run,
        artefacts=FORMATS,
        weight=0.9,
        further_adapters=[FurtherAdapter(path=other, weight=0.2)],
        adapter_exports=["vllm", "llamacpp"],
    )
    facts = run_stage(config, run)
    assert outcomes(facts) == {name: {"passed"} for name in FORMATS}
    for one in facts["artefacts"]:
        assert {gate["gate"] for gate in one["gates"]} == {"logits", "acts", "prompt", "loss"}
        assert (run / one["path"]).exists()
        assert one["loss"] is not None and facts["base_loss"] is not None
        assert one["loss"] < facts["base_loss"] - 1
    assert facts["num_merged_tensors"] == len(facts["survival"]) == 2 * 7
    assert set(facts["base"]["losses"] or {}) == {"bf16", "nf4"}
    assert facts["adapters"] == [
        {"name": "tiny", "weight": 0.9},
        {"name": "other", "weight": 0.2},
    ]
    assert facts["adapter_exports"]["vllm"]["rank"] == 8
    assert {file.name for file in (run / "artefacts").iterdir()} == {
        *("tiny.q4_k_m.gguf", "base.q4_k_m.gguf", "tiny.mmproj.gguf"),
        *("tiny.w4a16", "tiny.nf4", "tiny.lora", "tiny.lora.gguf"),
    }
    assert "all gates" in (run / "merge" / "report.html").read_text().lower()
    taken = disk_bytes(config.merge, run.parent / "checkpoint", with_base=True, with_vision=True)
    files = [file for folder in ("artefacts", "merged") for file in (run / folder).rglob("*")]
    assert sum(file.stat().st_size for file in files if file.is_file()) < taken
    json.dumps(facts)
    # The merged weights are the weighted sum.
    weights = MergedWeights.open(
        run.parent / "checkpoint",
        [WeightedAdapter(run / "adapter", 0.9), WeightedAdapter(other, 0.2)],
        base=facts["base"]["kept"],
    )
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    places = {name: shard for shard in list_shards(run / "merged") for name in tensor_names(shard)}
    assert torch.equal(read_tensor(places[name], name), weights.read(name).to(torch.bfloat16))


def test_merged_weights_are_removed_where_they_are_not_asked_for(f16_run: Path) -> None:
    assert not (f16_run / "merged").exists()
    assert {file.name for file in (f16_run / "artefacts").iterdir()} == {
        "tiny.f16.gguf",
        "tiny.mmproj.gguf",
    }
    assert {path.name for path in f16_run.iterdir()} == {"adapter", "artefacts", "data", "merge"}


def leave_out_the_adapter(
    weights: MergedWeights,
    folder: Path,
    **_: Any,  # noqa: ANN401 - as the real one's
) -> dict[str, float]:
    for file in weights.checkpoint.iterdir():
        shutil.copyfile(file, folder / file.name)
    return dict.fromkeys(weights.modules, 1.0)


def lose_the_template(checkpoint: Path) -> str:
    return "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("name", "fault", "gate"),
    [
        ("write_merged", leave_out_the_adapter, "acts"),
        ("served_template", lose_the_template, "prompt"),
        ("open", None, "logits"),
    ],
)
def test_a_fault_ends_the_stage_and_leaves_what_was_there(
    name: str, fault: object, gate: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("artefacts", "merged"):
        (run / folder).mkdir()
        (run / folder / "of-before").write_text(folder)
    before = digests(run, "artefacts", "merged")
    if fault is None:
        opened = MergedWeights.open
        doubled = [WeightedAdapter(run / "adapter", 2.0)]
        monkeypatch.setattr(
            MergedWeights, "open", lambda checkpoint, _, base="bf16": opened(checkpoint, doubled)
        )
    else:
        monkeypatch.setattr(build, name, fault)
    with pytest.raises(UserError, match=rf"(?s)does not carry the adapter.*gate {gate}") as caught:
        run_stage(build_config(run, hosted=True, base="bf16"), run)
    assert "report.html" in str(caught.value)
    assert digests(run, "artefacts", "merged") == before
    assert not list(run.glob(".*"))
    assert "failed" in (run / "merge" / "report.html").read_text()


@pytest.mark.parametrize("base", ["bf16", "nf4"])
def test_the_base_can_be_told(base: str, run: Path) -> None:
    config = build_config(run, base=base)
    merge = Merge(
        config=config,
        run=run,
        checkpoint=run.parent / "checkpoint",
        open_gguf=open_served,
        steps=Steps(Console(quiet=True)),
    )
    yardstick = take_yardstick(merge)
    assert (yardstick.kept, yardstick.losses) == (base, None)
    assert yardstick.reference.scores.loss < yardstick.base.scores.loss - 1
    assert list(merge.steps.seconds) == ["asking the base", "asking base and adapter"]


def test_missing_disk_space_is_told_before_anything_is_made(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(run)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match="are needed on this disk"):
        run_stage(build_config(run), run)
    assert {path.name for path in run.iterdir()} == {"adapter", "data"}


def test_an_adapter_of_another_base_is_told_before_anything_is_measured(
    run: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    other = write_adapter(tiny_checkpoint, tmp_path / "other")
    config = build_config(run, further_adapters=[FurtherAdapter(path=other)])
    with pytest.raises(UserError, match="which the base does not have"):
        run_stage(config, run)


def test_a_kill_leaves_nothing_and_the_next_run_makes_the_same(run: Path, f16_run: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-m", "tests.train.artefacts.merge_stage", str(run), "checking f16"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (run / "artefacts").exists()
    assert not (run / "merged").exists()
    assert (run / ".artefacts.partial" / "tiny.f16.gguf").exists()
    run_stage(build_config(run, artefacts=["f16"], hosted=True, base="bf16"), run)
    assert digests(run, "artefacts") == digests(f16_run, "artefacts")
    assert not list(run.glob(".*"))


def test_both_scorers_keep_as_many_likeliest_tokens() -> None:
    """The engine's scorer may not import the gates, and their figures are compared by token."""
    assert llama_scorer.NUM_TOP == scoring.NUM_TOP
