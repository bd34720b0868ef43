import json
from pathlib import Path

import pytest
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalSpec,
    bundle_log_dir,
    write_eval_log,
)

from configs.errors import UserError
from evals import log_bundle
from evals.log_bundle import outside_addresses, write_log_bundle

POLICY = "default-src 'none'; script-src 'self' 'sha256-abc+/='; img-src 'self' data:"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    spec = EvalSpec(
        created="2026-11-20T10:00:00+00:00",
        task="diagnosis",
        dataset=EvalDataset(),
        model="openai-api/tunery/variant",
        config=EvalConfig(),
    )
    for side in ("variant", "baseline"):
        (folder / side).mkdir(parents=True)
        write_eval_log(EvalLog(eval=spec), str(folder / side / f"{side}.eval"))
    return folder


def test_the_bundle_holds_viewer_and_logs_and_tells_no_place(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_log_bundle(logs, tmp_path / "log-viewer")
    files = [file for file in bundle.folder.rglob("*") if file.is_file()]
    assert bundle.num_bytes == sum(file.stat().st_size for file in files)
    assert (tmp_path / bundle.page).is_file()
    listed = json.loads((bundle.folder / "logs" / "listing.json").read_text())
    assert set(listed) == {"variant/variant.eval", "baseline/baseline.eval"}
    index = (bundle.folder / "index.html").read_text()
    assert '{"log_dir": "logs"}' in index
    assert str(tmp_path) not in index
    assert capsys.readouterr().out == ""


def test_the_installed_viewer_can_load_nothing_from_elsewhere(logs: Path, tmp_path: Path) -> None:
    bundle = write_log_bundle(logs, tmp_path / "log-viewer")
    assert outside_addresses((bundle.folder / "index.html").read_text()) == []


def test_a_second_bundle_takes_the_place_of_the_first(logs: Path, tmp_path: Path) -> None:
    folder = write_log_bundle(logs, tmp_path / "log-viewer").folder
    (folder / "left-over").touch()
    write_log_bundle(logs, folder)
    assert not (folder / "left-over").exists()
    assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []


@pytest.mark.parametrize(
    ("page", "found"),
    [
        (f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">', []),
        ("<p>no policy</p>", ["anything"]),
        (
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY} https://cdn.invalid">',
            ["img-src https://cdn.invalid"],
        ),
        (
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<script src="//cdn.invalid/x.js"></script><link href="./own.css">',
            ["//cdn.invalid/x.js"],
        ),
    ],
)
def test_outside_addresses_are_found(page: str, found: list[str]) -> None:
    outside = outside_addresses(page)
    assert len(outside) == len(found)
    assert all(address.startswith(wanted) for address, wanted in zip(outside, found, strict=True))


def test_a_viewer_that_reaches_out_is_not_handed_out(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_viewer(log_dir: str, output_dir: str, *, overwrite: bool) -> None:
        bundle_log_dir(log_dir, output_dir, overwrite=overwrite)
        index = Path(output_dir) / "index.html"
        index.write_text(index.read_text().replace("default-src 'none'", "default-src *"))

    monkeypatch.setattr(log_bundle, "bundle_log_dir", open_viewer)
    with pytest.raises(UserError, match="would load from elsewhere"):
        write_log_bundle(logs, tmp_path / "log-viewer")
    assert not (tmp_path / "log-viewer").exists()
