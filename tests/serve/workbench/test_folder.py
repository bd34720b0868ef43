"""Where the workbench is shown without being asked for: where no stranger reaches it."""

from pathlib import Path

import pytest

from configs.serve_schema import ServeConfig
from serve.access.commands import add_key
from serve.assemble import build_service
from serve.settings import ServedVariant, ServerSettings
from serve.workbench.folder import Workbench, is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.1.2.3", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("no such host", False),
    ],
)
def test_only_addresses_of_this_machine_alone_are_private(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def workbench_of(folder: Path, **serve: object) -> Workbench | None:
    runs = [folder / "runs" / "one", folder / "runs" / "two"]
    artefact = folder / "one.gguf"
    artefact.touch()
    settings = ServerSettings(
        variants=[ServedVariant(name="one", artefact=artefact)],
        serve=ServeConfig.model_validate(serve),
        runs=runs,
        folder=runs[0] / "serve",
    )
    return build_service(settings).workbench


def test_it_shows_the_runs_folder_and_keeps_votes_in_the_run(tmp_path: Path) -> None:
    assert workbench_of(tmp_path) == Workbench(
        runs_folder=tmp_path / "runs",
        served=["one", "two"],
        votes_file=tmp_path / "runs" / "one" / "serve" / "votes.jsonl",
    )


def test_strangers_see_it_only_where_the_configuration_says_so(tmp_path: Path) -> None:
    everywhere = {"host": "0.0.0.0"}
    keys = tmp_path / "keys.json"
    add_key(keys, "office")
    assert workbench_of(tmp_path, **everywhere) is None
    assert workbench_of(tmp_path, **everywhere, workbench=True) is not None
    assert workbench_of(tmp_path, **everywhere, api_keys_path=str(keys)) is not None
    assert workbench_of(tmp_path, workbench=False) is None
