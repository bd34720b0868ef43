"""Stages on a local Ray cluster of two workers: the same outputs, also where a worker is killed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from configs.errors import UserError
from configs.load import load_config
from configs.ray_cluster import open_cluster, run_remotely
from configs.ray_stages import StagesOnRay
from configs.run_directory import RunDirectory, StageName, create_run
from configs.run_storage import RunStorage
from tests.ray_workers import kill_a_worker
from tunery import work_stage

QUIET = Console(quiet=True)
LIMIT_S = 240.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNERY_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def cluster(cache: None) -> Iterator[None]:
    with open_cluster("local"):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("variant")
    row = '{"prompt": "Which colour is number %d?", "completion": "The answer is blue."}\n'
    (made / "rows.jsonl").write_text("".join(row % number for number in range(120)))
    return made


def run_of(folder: Path, checkpoint: Path, *, name: str, devices: int = 1) -> RunDirectory:
    file = folder / "tiny.yaml"
    file.write_text(
        f"""
name: tiny
description: A test.
model:
  name: tiny
  licence: MIT
  source: {{kind: folder, path: {checkpoint}}}
  max_length: 96
data:
  source: {{kind: files, path: rows.jsonl}}
  test_fraction: 0.2
  validation_fraction: 0.2
train:
  num_steps: 40
  batch_rows: 4
  micro_batch_rows: 2
  save_every_steps: 2
  validate_every_steps: 20
hardware: {{devices: {devices}}}
evaluation: {{task: test}}
"""
    )
    return create_run(load_config(file), folder / name)


def work(run: RunDirectory, stages: list[StageName], *, on: StagesOnRay | None = None) -> None:
    for stage in stages:
        do = on.work if on else work_stage
        assert not do(stage, run, run.load_config(), QUIET).skipped


def hashes(run: RunDirectory, stage: StageName) -> dict[str, str]:
    """Of the outputs, but for the pages, which tell times."""
    outputs = run.finished(stage)["outputs"]
    return {name: file["sha256"] for name, file in outputs.items() if not name.endswith(".html")}


@pytest.fixture(scope="module")
def plain(folder: Path, tiny_checkpoint: Path, cache: None) -> RunDirectory:
    """The undisturbed run on this machine alone."""
    run = run_of(folder, tiny_checkpoint, name="plain")
    work(run, ["prepare", "train"])
    return run


@contextmanager
def once_saved(run: RunDirectory, act: Callable[[], None]) -> Iterator[None]:
    """Acts while the block trains, as soon as the first checkpoint is whole."""
    failed: list[BaseException] = []

    def wait() -> None:
        until = time.monotonic() + LIMIT_S
        while not list((run.path / "checkpoints").glob("checkpoint-*/complete")):
            if time.monotonic() > until:
                failed.append(AssertionError("no checkpoint came"))
                return
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        assert not failed, failed


def test_rows_prepared_over_ray_data_are_those_of_one_machine(
    folder: Path, tiny_checkpoint: Path, plain: RunDirectory, cluster: None
) -> None:
    run = run_of(folder, tiny_checkpoint, name="prepared")
    work(run, ["prepare"], on=StagesOnRay(work_stage))
    assert hashes(run, "prepare") == hashes(plain, "prepare")
    result = StagesOnRay(work_stage).work("prepare", run, run.load_config(), QUIET)
    assert result.skipped


def test_a_worker_killed_in_training_leaves_the_adapter_of_the_undisturbed_run(
    folder: Path, tiny_checkpoint: Path, plain: RunDirectory, cluster: None
) -> None:
    run = run_of(folder, tiny_checkpoint, name="killed")
    work(run, ["prepare"])
    with once_saved(run, lambda: kill_a_worker("ray::_attempt")):
        work(run, ["train"], on=StagesOnRay(work_stage))
    assert run.finished("train")["facts"]["resumed_from_step"] > 0
    assert hashes(run, "train") == hashes(plain, "train")


def test_one_of_two_workers_killed_in_training_leaves_the_adapter_of_two_undisturbed_ones(
    folder: Path, tiny_checkpoint: Path, cluster: None
) -> None:
    undisturbed = run_of(folder, tiny_checkpoint, name="two", devices=2)
    work(undisturbed, ["prepare", "train"])
    run = run_of(folder, tiny_checkpoint, name="two-killed", devices=2)
    work(run, ["prepare"])
    with once_saved(run, lambda: kill_a_worker("ray::RayTrainWorker")):
        work(run, ["train"], on=StagesOnRay(work_stage))
    facts = run.finished("train")["facts"]
    assert facts["num_processes"] == 2
    assert facts["resumed_from_step"] > 0
    assert hashes(run, "train") == hashes(undisturbed, "train")


def test_a_stage_works_on_what_the_store_holds_and_leaves_its_output_there(
    folder: Path, tiny_checkpoint: Path, plain: RunDirectory, cluster: None, tmp_path: Path
) -> None:
    storage = RunStorage(f"file://{tmp_path}/store")
    run = run_of(folder, tiny_checkpoint, name="stored")
    work(run, ["prepare"], on=StagesOnRay(work_stage, storage=storage))
    elsewhere = RunDirectory(tmp_path / "elsewhere" / run.path.name)
    storage.pull(elsewhere.path)
    assert hashes(elsewhere, "prepare") == hashes(plain, "prepare")
    result = StagesOnRay(work_stage, storage=storage).work(
        "prepare", elsewhere, elsewhere.load_config(), QUIET
    )
    assert result.skipped


def refuse(what: str) -> None:
    raise UserError(what, where="here", remedy="nothing")


def test_what_a_user_can_mend_comes_back_as_itself(cluster: None) -> None:
    with pytest.raises(UserError, match="no such thing") as caught:
        run_remotely(refuse, "no such thing")
    assert (caught.value.where, caught.value.remedy) == ("here", "nothing")


def test_faults_come_back_as_themselves(cluster: None) -> None:
    with pytest.raises(ZeroDivisionError):
        run_remotely(divmod, 1, 0)
