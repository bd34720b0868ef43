"""What is written, for whom, for how long, and what a broken disk does."""

import asyncio
import json
import logging
import os
import stat
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from configs.serve_schema import RecordingConfig
from data.conversation import ImagePart, TextPart
from serve.engine import Completion
from serve.pair import Pair
from serve.recording_summary import summarise_recordings
from serve.recordings import Recorder, remove_expired
from serve.transcript import Transcript
from tests.full_disk import limited_file_size
from tests.serve.scripted import QUESTION, saying

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def transcript(text: str) -> Transcript:
    made = Transcript()
    for event in saying(text):
        made.add(event)  # type: ignore[arg-type]
    return made


def pair(
    *, main: str = "It is 6 m.", shadow: str | None = "It is 6 m.", request: Completion = QUESTION
) -> Pair:
    made = Pair(
        time=NOW,
        route="m",
        request_id="r1",
        client="team-a",
        request=request,
        main="hosted/m",
        answered=transcript(main),
        shadow="variant",
    )
    if shadow is not None:
        made.shadowed, made.outcome = transcript(shadow), "answered"
    return made


def write(folder: Path, *pairs: Pair, config: RecordingConfig | None = None) -> Recorder:
    """Record the pairs and close."""
    recorder = Recorder(folder, config or RecordingConfig(keep_days=1e5))
    for one in pairs:
        recorder.add(one)
    asyncio.run(recorder.close())
    return recorder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in folder.iterdir() for line in file.read_text().splitlines()]


def test_texts_are_kept_only_where_they_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, pair(main="yes", shadow="no"))
    text = (tmp_path / "2026-03-10.jsonl").read_text()
    assert "How long" not in text and '"yes"' not in text and '"no"' not in text
    kept = RecordingConfig(texts=True, keep_days=1e5)
    write(tmp_path / "kept", pair(main="yes", shadow="no"), config=kept)
    [record] = lines(tmp_path / "kept")
    assert record["messages"] == list(QUESTION.messages)
    assert record["main"]["answers"] == [{"text": "yes", "tool_calls": []}]
    assert record["shadow"]["answers"] == [{"text": "no", "tool_calls": []}]


def test_images_are_never_kept(tmp_path: Path) -> None:
    image: ImagePart = {"type": "image_url", "image_url": {"url": "data:image/png;base64,SECRET"}}
    text: TextPart = {"type": "text", "text": "What is it?"}
    request = replace(QUESTION, messages=({"role": "user", "content": [text, image]},))
    kept = RecordingConfig(texts=True, keep_days=1e5)
    write(tmp_path, pair(request=request), config=kept)
    [record] = lines(tmp_path)
    assert "SECRET" not in json.dumps(record)
    parts = record["messages"][0]["content"]
    assert parts[0] == text and len(parts[1]["sha256"]) == 64
    assert image["image_url"]["url"].endswith("SECRET"), "the request itself is untouched"


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write(tmp_path / "a" / "recordings", pair())
    finally:
        os.umask(before)
    folder = tmp_path / "a" / "recordings"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "2026-03-10.jsonl").stat().st_mode) == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("mine")
    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "2026-03-10.jsonl").symlink_to(target)
    assert write(folder, pair()).num_errors == 1
    assert target.read_text() == "mine"


@pytest.mark.parametrize(
    ("keep_days", "file", "kept"),
    [
        (7.0, "2026-03-02.jsonl", False),  # all of it is older than seven days
        (7.0, "2026-03-03.jsonl", True),  # its last record is not
        (0.5, "2026-03-09.jsonl", False),  # since this very noon
        (0.51, "2026-03-09.jsonl", True),
        (0.5, "2026-03-10.jsonl", True),
        (7.0, "2026-13-45.jsonl", True),
        (7.0, "1999-01-01.txt", True),
        (7.0, "notes.jsonl", True),
    ],
)
def test_a_file_goes_when_its_whole_day_is_old_enough(
    keep_days: float, file: str, kept: bool, tmp_path: Path
) -> None:
    (tmp_path / file).write_text("{}\n")
    remove_expired(tmp_path, keep_days=keep_days, now=NOW)
    assert (tmp_path / file).exists() == kept


def test_a_record_lives_at_least_keep_days_and_at_most_a_day_longer(tmp_path: Path) -> None:
    file = tmp_path / "2026-03-10.jsonl"
    first = datetime(2026, 3, 10, tzinfo=UTC)
    last = first + timedelta(hours=23, minutes=59, seconds=59)
    file.write_text("{}\n")
    due = remove_expired(tmp_path, keep_days=2, now=last + timedelta(days=2))
    assert file.exists()
    assert due == first + timedelta(days=3)
    assert remove_expired(tmp_path, keep_days=2, now=due) is None
    assert not file.exists()


def test_old_files_go_when_a_recorder_starts_and_on_time_while_it_runs(tmp_path: Path) -> None:
    (tmp_path / "2001-01-01.jsonl").write_text("{}\n")
    today = datetime.now(UTC)
    midnight = datetime(today.year, today.month, today.day, tzinfo=UTC)
    old = tmp_path / f"{midnight - timedelta(days=3):%Y-%m-%d}.jsonl"
    old.write_text("{}\n")
    soon = (datetime.now(UTC) + timedelta(seconds=1.5) - midnight) / timedelta(days=1)
    recorder = Recorder(tmp_path, RecordingConfig(keep_days=2 + soon))
    time.sleep(0.3)
    assert list(tmp_path.iterdir()) == [old]
    time.sleep(2.5)
    assert list(tmp_path.iterdir()) == []
    asyncio.run(recorder.close())


def test_a_folder_that_cannot_be_written_harms_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    told: list[None] = []
    recorder = Recorder(
        blocked / "recordings", RecordingConfig(), on_error=lambda: told.append(None)
    )
    for _ in range(3):
        recorder.add(pair())
    asyncio.run(recorder.close())
    asyncio.run(recorder.close())
    assert recorder.num_errors == len(told) == 3
    [message] = caplog.messages
    assert "Not a directory" in message


def test_a_full_disk_leaves_no_torn_line_and_writing_goes_on_after_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, pair())
    [file] = tmp_path.iterdir()
    size = file.stat().st_size
    with limited_file_size(size + 100):
        assert write(tmp_path, pair(), pair()).num_errors == 2
    assert file.stat().st_size == size
    assert len(caplog.messages) == 1 and "File too large" in caplog.text
    assert write(tmp_path, pair()).num_errors == 0
    assert len(lines(tmp_path)) == 2


def test_after_writing_worked_again_the_next_fault_is_told_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(tmp_path, RecordingConfig(texts=True, keep_days=1e5))
    broken = replace(QUESTION, messages=({"role": "user", "content": "\ud800"},))
    for request in (broken, broken, QUESTION, broken):
        recorder.add(pair(request=request))
    asyncio.run(recorder.close())
    assert recorder.num_errors == 3
    assert len(caplog.messages) == 2
    assert len(lines(tmp_path)) == 1


def test_a_disk_that_hangs_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serve.recordings.MAX_WAITING", 10)
    monkeypatch.setattr("serve.recordings.CLOSE_S", 0.2)
    pipe = tmp_path / "2026-03-10.jsonl"
    os.mkfifo(pipe)  # opening it waits for a reader that never comes
    recorder = Recorder(tmp_path, RecordingConfig(keep_days=1e5))
    began = time.monotonic()
    for _ in range(50):
        recorder.add(pair())
    assert time.monotonic() - began < 0.5
    assert recorder.num_errors >= 39
    asyncio.run(recorder.close())
    assert time.monotonic() - began < 2
    assert len(caplog.messages) == 1
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))  # lets the thread go


def test_what_waits_is_written_before_the_end(tmp_path: Path) -> None:
    recorder = write(tmp_path, *(pair() for _ in range(500)))
    assert len(lines(tmp_path)) == 500
    assert not recorder._thread.is_alive()


def test_a_pair_after_the_end_is_counted_as_lost(tmp_path: Path) -> None:
    recorder = write(tmp_path)
    recorder.add(pair())
    assert recorder.num_errors == 1


def test_the_summary_tells_agreement_latency_and_refusals(tmp_path: Path) -> None:
    refused = pair(shadow=None)
    refused.outcome = "refused"
    write(tmp_path, pair(), pair(), pair(shadow="It is 7 m."), refused)
    with (tmp_path / "2026-03-10.jsonl").open("a") as file:
        file.write('{"torn')
    [summary] = summarise_recordings(tmp_path)
    assert (summary.route, summary.main, summary.shadow) == ("m", "hosted/m", "variant")
    assert summary.outcomes == {"answered": 3, "refused": 1}
    assert summary.share_equal == 2 / 3
    assert summary.main_total_ms is not None and summary.shadow_first_token_ms is not None
    assert summarise_recordings(tmp_path / "none") == []


def test_the_summary_of_pairs_without_answers_has_no_numbers(tmp_path: Path) -> None:
    write(tmp_path, pair(shadow=None))
    [summary] = summarise_recordings(tmp_path)
    assert summary.outcomes == {"ended": 1}
    assert summary.share_equal is summary.shadow_total_ms is summary.main_total_ms is None


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "serve")
