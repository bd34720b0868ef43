"""Adding, removing and listing keys."""

import hashlib
import json
import multiprocessing
import os
import re
import stat
from pathlib import Path

import pytest
from rich.console import Console

from configs.errors import UserError
from serve.access.commands import add_key, build_key_table, remove_key
from serve.access.key_file import KEY_BYTES, KeyFile, read_keys, write_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def listed(file: Path) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(build_key_table(file))
    return captured.get()


def test_a_key_is_random_and_only_its_hash_is_kept(file: Path) -> None:
    keys = [add_key(file, f"client-{number}") for number in range(5)]
    assert len(set(keys)) == 5
    for number, key in enumerate(keys):
        assert re.fullmatch(r"tunery_[A-Za-z0-9_-]{43}", key)
        assert len(key.removeprefix("tunery_")) * 6 >= KEY_BYTES * 8 == 256
        assert key not in file.read_text()
        entry = json.loads(file.read_text())["keys"][number]
        assert entry["name"] == f"client-{number}"
        assert entry["sha256"] == hashlib.sha256(key.encode()).hexdigest()


def test_only_the_owner_can_read_the_file_whatever_the_mask(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "keys.json"
    former = os.umask(0)
    try:
        add_key(file, "first")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o644)
        add_key(file, "second")
    finally:
        os.umask(former)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["keys.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the files of others")
def test_the_file_of_a_servers_user_stays_its_own(file: Path) -> None:
    add_key(file, "first")
    os.chown(file, 1234, 2345)
    add_key(file, "second")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 2345)


def test_a_write_that_fails_leaves_the_former_file_and_nothing_beside_it(file: Path) -> None:
    add_key(file, "first")
    before = file.read_text()
    broken = KeyFile.model_construct(keys=(object(),))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="seriali"):
        write_keys(file, broken)
    folder = file.parent / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="irectory"):
        write_keys(folder, KeyFile())
    assert file.read_text() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["folder", "keys.json"]


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "-a", ".a", "é", "a" * 65, "a\n", "[red]"])
def test_odd_names_are_refused(file: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be the name"):
        add_key(file, name)
    assert not file.exists()


@pytest.mark.parametrize(
    "name", ["a", "0", "team-a", "app.prod_2", "someone@example.org", "a" * 64]
)
def test_names_of_people_and_programs_are_taken(file: Path, name: str) -> None:
    add_key(file, name)
    assert [entry.name for entry in read_keys(file).keys] == [name]


def test_names_are_unique(file: Path) -> None:
    add_key(file, "client")
    with pytest.raises(UserError, match="of that name already"):
        add_key(file, "client")
    add_key(file, "Client")
    assert len(read_keys(file).keys) == 2


@pytest.mark.parametrize("terms", [{"requests_per_minute": 0}, {"requests_per_minute": -1}])
def test_limits_that_let_nobody_in_are_refused(file: Path, terms: dict[str, int]) -> None:
    with pytest.raises(UserError, match="let nobody in"):
        add_key(file, "client", **terms)


@pytest.mark.parametrize("days", [0, -1, 1e9, float("nan"), float("inf")])
def test_ends_that_are_none_are_refused(file: Path, days: float) -> None:
    with pytest.raises(UserError, match="cannot end after"):
        add_key(file, "client", expires_after_days=days)


def test_removing_names_the_close_one_it_did_not_find(file: Path) -> None:
    add_key(file, "laboratory")
    with pytest.raises(UserError, match="no key of that name") as caught:
        remove_key(file, "labratory")
    assert "did you mean laboratory?" in str(caught.value)
    remove_key(file, "laboratory")
    assert read_keys(file).keys == ()


def test_a_misspelt_file_is_no_new_one(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "keys.json"
    for ask in (build_key_table, lambda file: remove_key(file, "client")):
        with pytest.raises(UserError, match="cannot be read") as caught:
            ask(file)
        assert caught.value.where == str(file)
    assert not file.parent.exists()


def test_a_broken_file_is_not_written_over(file: Path) -> None:
    file.write_text('{"keys": [')
    with pytest.raises(UserError, match="broken"):
        add_key(file, "client")
    assert file.read_text() == '{"keys": ['


def test_a_file_with_one_name_twice_is_broken(file: Path) -> None:
    add_key(file, "client")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({"keys": content["keys"] * 2}))
    with pytest.raises(UserError, match="the same name"):
        read_keys(file)


def test_a_folder_that_is_none_is_an_error_of_its_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        add_key(tmp_path / "file" / "keys.json", "client")


def test_the_list_shows_names_and_terms_and_no_hash(file: Path) -> None:
    add_key(file, "free")
    add_key(file, "limited", requests_per_minute=1200, expires_after_days=30)
    add_key(file, "ended", expires_after_days=1e-9)
    text = listed(file)
    assert re.search(r"free +\d{4}-\d\d-\d\d \d\d:\d\d +no limit +never", text)
    assert re.search(r"limited .* 1,200 +\d{4}-\d\d-\d\d \d\d:\d\d *\n", text)
    assert re.search(r"ended .* expired", text)
    for entry in read_keys(file).keys:
        assert entry.sha256[:8] not in text


def _add_ten(file: Path, number: int) -> None:
    for count in range(10):
        add_key(file, f"process-{number}-{count}")


def test_keys_that_are_added_at_the_same_time_are_all_kept(file: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_ten, args=(file, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(read_keys(file).keys) == 40
