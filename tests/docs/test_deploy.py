"""The files in docs/deploy are well formed, call the command as it is, and agree with each other.

What reads them in earnest (SkyPilot, Slurm, KubeRay) is not installed with the tests; how they were
held against it stands in docs/deploy/README.md.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from ruamel.yaml import YAML
from typer.core import TyperGroup

from configs.load import load_config
from configs.schema import RunConfig
from tunery import app

FOLDER = Path(__file__).parents[2] / "docs" / "deploy"
SKYPILOT = ("skypilot.yaml", "skypilot-serve.yaml")
SLURM = FOLDER / "slurm.sbatch"
SHELL_VARIABLE = re.compile(r"\$\{?\w+\}?")
CALL = re.compile(r"tunery ((?:run|serve) .*)")
DEVICES = re.compile(r"hardware: \{devices: (\d+)\}")

# The fields of KubeRay's v1 types (RayJobSpec, RayClusterSpec, HeadGroupSpec, WorkerGroupSpec) that
# are used here; Kubernetes drops fields that it does not know, without a word.
JOB_FIELDS = {
    *("entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"),
    "rayClusterSpec",
}
CLUSTER_FIELDS = {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
HEAD_FIELDS = {"rayStartParams", "template"}
WORKER_FIELDS = HEAD_FIELDS | {"groupName", "replicas", "minReplicas", "maxReplicas"}
# utils.MaxRayJobNameLength of the operator.
MAX_JOB_NAME = 47


class Called(NamedTuple):
    """A command line of tunery in a file, without the program's own name."""

    file: str
    arguments: list[str]


def read_all(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe", pure=True).load_all((FOLDER / name).read_text(encoding="utf-8")))


def read_kind(kind: str) -> dict[str, Any]:
    [found] = [one for one in read_all("kuberay-rayjob.yaml") if one["kind"] == kind]
    return found


def shell_scripts() -> Iterator[tuple[str, str]]:
    """Name and text of each script, those within YAML too."""
    yield SLURM.name, SLURM.read_text(encoding="utf-8")
    for name in SKYPILOT:
        [task] = read_all(name)
        yield f"{name}: setup", task["setup"]
        yield f"{name}: run", task["run"]


def called() -> Iterator[Called]:
    """Every call of the command that the files make."""
    lines = [
        (name, line)
        for name, text in shell_scripts()
        for line in text.splitlines()
        if not line.lstrip().startswith("#")
    ]
    lines += [(unit.name, line) for unit in FOLDER.glob("*.service") for line in unit.open()]
    lines.append(("kuberay-rayjob.yaml", read_kind("RayJob")["spec"]["entrypoint"]))
    for name, line in lines:
        call = CALL.search(SHELL_VARIABLE.sub("word", line))
        if call:
            yield Called(name, shlex.split(call[1]))
    [compose] = read_all("compose.yaml")
    yield Called("compose.yaml", compose["services"]["tunery"]["command"])


@pytest.mark.parametrize("call", [pytest.param(one, id=one.file) for one in called()])
def test_commands_are_accepted(call: Called) -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    name, *arguments = call.arguments
    with root.make_context("tunery", call.arguments) as context:
        command = root.get_command(context, name)
        assert command is not None
        command.make_context(name, arguments, parent=context)


def test_every_file_that_runs_something_is_seen() -> None:
    assert {call.file.partition(":")[0] for call in called()} == {
        *("compose.yaml", "kuberay-rayjob.yaml", "slurm.sbatch", "tunery.service"),
        *SKYPILOT,
    }


@pytest.mark.parametrize(("name", "text"), list(shell_scripts()))
def test_scripts_are_shell(name: str, text: str) -> None:
    read = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=20)
    assert read.returncode == 0, read.stderr
    if shutil.which("shellcheck"):
        check = ["shellcheck", "--shell=bash", "-"]
        found = subprocess.run(check, input=text, capture_output=True, text=True, timeout=60)
        assert found.returncode == 0, found.stdout


def test_what_comments_say_of_the_hardware_fits_the_configuration_beside_it() -> None:
    told = [
        int(devices)
        for file in (*SKYPILOT, SLURM.name)
        for devices in DEVICES.findall((FOLDER / file).read_text(encoding="utf-8"))
    ]
    assert told == [2, 2]
    config = load_config(FOLDER.parents[1] / "configs" / "legal.yaml").model_dump()
    for devices in told:
        RunConfig.model_validate({**config, "hardware": {"devices": devices}})


@pytest.mark.parametrize("name", SKYPILOT)
def test_skypilot_tasks_take_the_bucket_from_who_launches(name: str) -> None:
    [task] = read_all(name)
    required = {key for key, value in task["envs"].items() if value is None}
    assert "BUCKET" in required
    usage = (FOLDER / name).read_text(encoding="utf-8").partition("\nname:")[0]
    for key in required:
        assert f"--env {key}=" in usage


def test_the_variant_in_the_config_map_is_a_configuration(tmp_path: Path) -> None:
    [(name, text)] = read_kind("ConfigMap")["data"].items()
    (tmp_path / name).write_text(text, encoding="utf-8")
    config = load_config(tmp_path / name)
    assert read_kind("RayJob")["spec"]["entrypoint"].split()[2] == f"/etc/tunery/{name}"
    assert "w4a16" in config.merge.artefacts


def test_the_ray_job_has_no_field_that_would_be_dropped() -> None:
    job = read_kind("RayJob")
    assert job["apiVersion"] == "ray.io/v1"
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    assert len(job["metadata"]["name"]) <= MAX_JOB_NAME
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec.keys() == JOB_FIELDS
    assert cluster.keys() == CLUSTER_FIELDS
    assert cluster["headGroupSpec"].keys() == HEAD_FIELDS
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() == WORKER_FIELDS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def pod_templates() -> list[dict[str, Any]]:
    cluster = read_kind("RayJob")["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_head_and_workers_run_the_same_image_on_the_same_volumes() -> None:
    claims = {read_kind("PersistentVolumeClaim")["metadata"]["name"]}
    maps = {read_kind("ConfigMap")["metadata"]["name"]}
    for pod in pod_templates():
        [container] = pod["containers"]
        assert container["image"] == "IMAGE"
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            source = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert source in claims or volume["configMap"]["name"] in maps
    head, *workers = pod_templates()
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    assert all("nvidia.com/gpu" in one["containers"][0]["resources"]["limits"] for one in workers)


def test_the_cluster_says_which_ray_is_in_the_image() -> None:
    pytest.importorskip("ray", reason="the Ray that the extra brings is not installed")
    assert read_kind("RayJob")["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")


def test_kubernetes_takes_the_objects_and_the_pods() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        for spec in pod_templates()
    ]
    for one in [read_kind("PersistentVolumeClaim"), read_kind("ConfigMap"), *pods]:
        validate.validate(one, validate.latest_version(), strict=True)
