"""The workbench's paths over HTTP: who gets what, under which headers, and what is refused."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from data.votes import read_votes
from serve.access.commands import add_key
from serve.app import build_app
from serve.workbench.folder import Workbench
from serve.workbench.markdown import MAX_CHARACTERS
from serve.workbench.page import ASSETS, POLICY
from tests.serve.scripted import saying, scripted_service

RUN = "notices"
API = "/workbench/api"
VOTE: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Which licence?"}],
    "parameters": {"temperature": 0},
    "a": {"model": "m", "target": "m", "message": {"role": "assistant", "content": "MIT"}},
    "b": {"model": "n", "target": None, "message": {"role": "assistant", "content": "None."}},
    "choice": "a",
    "shown_first": "b",
}
QUESTIONS = [
    ("GET", f"{API}/votes", None),
    ("POST", f"{API}/votes", VOTE),
    ("GET", f"{API}/runs", None),
    ("GET", f"{API}/samples?run={RUN}", None),
    ("POST", f"{API}/markdown", {"text": "*a*"}),
    ("POST", f"{API}/diff", {"a": "one two", "b": "one three"}),
    ("POST", f"{API}/calls", {"url": "http://127.0.0.1:1/v1", "body": {"model": "m"}}),
    ("POST", f"{API}/session", {}),
    ("GET", f"/workbench/runs/{RUN}/data/report.html", None),
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one run, which has a data report, beside a file of others."""
    run = tmp_path / "runs" / RUN
    (run / "data").mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "data" / "report.html").write_text("<h1>Rows</h1>", encoding="utf-8")
    (tmp_path / "secret.html").write_text("nobody else's", encoding="utf-8")
    return tmp_path / "runs"


@pytest.fixture
def workbench(runs: Path) -> Workbench:
    return Workbench(runs_folder=runs, served=[RUN], votes_file=runs / RUN / "votes.jsonl")


def client_of(workbench: Workbench | None, *, keys_file: Path | None = None) -> TestClient:
    service = scripted_service("m", saying("yes"), workbench=workbench, keys_file=keys_file)
    return TestClient(build_app(service), base_url="http://127.0.0.1", follow_redirects=False)


@pytest.fixture
def http(workbench: Workbench) -> Iterator[TestClient]:
    with client_of(workbench) as client:
        yield client


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def key(keys_file: Path) -> str:
    return add_key(keys_file, "office")


@pytest.fixture
def locked(workbench: Workbench, keys_file: Path, key: str) -> Iterator[TestClient]:
    """The same where the server asks for keys."""
    with client_of(workbench, keys_file=keys_file) as client:
        yield client


def test_the_page_and_its_files_come_under_the_strict_policy(http: TestClient) -> None:
    page = http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert named
    for path in ["/", *(name for name in named if name.startswith("/"))]:
        answer = http.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_policy_lets_nothing_in_from_elsewhere_and_nothing_inline() -> None:
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert "*" not in POLICY


def test_no_file_of_the_page_names_another_host() -> None:
    for file in ASSETS.iterdir():
        text = file.read_text(encoding="utf-8")
        hosts = set(re.findall(r"https?://([^/\s\"'`)]+)", text))
        assert hosts <= {"www.w3.org", "127.0.0.1:8000"}, file.name  # of XML, and an example


def test_a_file_that_has_not_changed_is_not_sent_again(http: TestClient) -> None:
    path = "/workbench/assets/store.js"
    tag = http.get(path).headers["etag"]
    again = http.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/workbench/assets/none.js",
        "/workbench/assets/..%2Fpage.py",
        "/workbench/assets/%2e%2e/page.py",
        f"/workbench/runs/{RUN}/serve/report.html",
        f"/workbench/runs/{RUN}/train/report.html",
        "/workbench/runs/other/data/report.html",
        "/workbench/runs/..%2F..%2Fsecret.html/data/report.html",
        "/workbench/runs/%2e%2e/data/report.html",
        f"{API}/samples?run=other",
        f"{API}/samples?run=../{RUN}",
    ],
)
def test_what_is_not_there_cannot_be_reached(path: str, http: TestClient) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert "nobody else" not in answer.text


def test_a_report_is_closed_off_from_the_page(http: TestClient) -> None:
    answer = http.get(f"/workbench/runs/{RUN}/data/report.html")
    assert answer.text == "<h1>Rows</h1>"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("method", "path", "body"), QUESTIONS)
def test_keys_apply_to_all_that_shows_or_keeps(
    method: str, path: str, body: object, locked: TestClient, key: str
) -> None:
    assert locked.request(method, path, json=body).status_code == 401
    wrong = {"Authorization": "Bearer tny-none"}
    assert locked.request(method, path, json=body, headers=wrong).status_code == 401
    right = {"Authorization": f"Bearer {key}"}
    assert locked.request(method, path, json=body, headers=right).status_code in (200, 201, 204)


def test_without_a_key_one_learns_that_keys_are_asked_for(locked: TestClient) -> None:
    about = locked.get(f"{API}/about").json()
    assert about["asks_for_keys"] is True
    assert about["runs"] == [RUN]
    assert locked.get("/").status_code == 200


def test_a_session_opens_reports_and_nothing_else(
    locked: TestClient, key: str, keys_file: Path
) -> None:
    answer = locked.post(f"{API}/session", json={}, headers={"Authorization": f"Bearer {key}"})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/workbench/runs" in cookie
    assert key not in cookie
    report = f"/workbench/runs/{RUN}/data/report.html"
    assert locked.get(report).status_code == 200
    token = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    assert locked.get(f"{API}/runs", headers=token).status_code == 401
    add_key(keys_file, "other")
    assert locked.get(report).status_code == 200
    keys_file.write_text('{"keys": []}', encoding="utf-8")
    assert locked.get(report).status_code == 401


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_behind_tls_the_session_goes_over_tls_alone(scheme: str, workbench: Workbench) -> None:
    with client_of(workbench) as http:
        cookie = http.post(f"{scheme}://127.0.0.1{API}/session", json={}).headers["set-cookie"]
    assert ("secure" in cookie.lower()) is (scheme == "https")


def test_samples_are_of_the_served_run_unless_another_is_named(
    http: TestClient, runs: Path
) -> None:
    sides = {"name": "m", "text": "MIT", "score": 1.0}
    sample = {"id": "1", "task": "t", "outcome": "both_right", "messages": [], "reference": "MIT"}
    (runs / RUN / "evals").mkdir()
    line = json.dumps(sample | {"baseline": sides, "variant": sides})
    (runs / RUN / "evals" / "samples.jsonl").write_text(f"{line}\n", encoding="utf-8")
    assert http.get(f"{API}/samples").json()["total"] == 1
    assert http.get(f"{API}/samples", params={"offset": 1}).json()["samples"] == []


@pytest.mark.parametrize("path", ["markdown", "diff"])
def test_texts_that_would_take_long_are_refused(path: str, http: TestClient) -> None:
    long = "a" * (MAX_CHARACTERS + 1)
    body = {"text": long} if path == "markdown" else {"a": long, "b": ""}
    assert http.post(f"{API}/{path}", json=body).status_code == 400


def test_votes_are_kept_with_who_cast_them_and_counted(
    locked: TestClient, key: str, workbench: Workbench
) -> None:
    own = {"Authorization": f"Bearer {key}"}
    told = locked.post(f"{API}/votes", json=VOTE, headers=own)
    assert told.status_code == 201
    assert workbench.votes_file is not None
    [kept] = read_votes(workbench.votes_file)
    assert (kept.id, kept.client, kept.choice) == (told.json()["id"], "office", "a")
    [pair] = locked.get(f"{API}/votes", headers=own).json()["pairs"]
    assert (pair["a"], pair["b"], pair["num_votes"], pair["num_a"]) == ("m", "n", 1, 1)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("votes", VOTE | {"choice": "c"}, "choice"),
        ("votes", {name: value for name, value in VOTE.items() if name != "a"}, "a"),
        ("votes", VOTE | {"client": "somebody else"}, "client"),
        ("markdown", {"text": 1}, "text"),
        ("markdown", {"text": "a", "html": True}, "html"),
        ("diff", {"a": "x"}, "b"),
        ("calls", {"url": "file:///etc/passwd", "body": {}}, "url"),
        ("calls", {"url": "http://x/$(id)", "body": {}}, "url"),
        ("calls", {"url": "http://x/v1", "body": []}, "body"),
    ],
)
def test_a_field_that_cannot_be_taken_is_named(
    path: str, body: object, field: str, http: TestClient, workbench: Workbench
) -> None:
    answer = http.post(f"{API}/{path}", json=body)
    assert answer.status_code == 400
    assert field in answer.json()["error"]["message"]
    assert workbench.votes_file is not None
    assert not workbench.votes_file.exists()


@pytest.mark.parametrize("number", ["-1", "x", "1.5", "9" * 30])
def test_a_number_that_is_none_is_refused(number: str, http: TestClient) -> None:
    answer = http.get(f"{API}/samples", params={"offset": number})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "offset"


def test_only_json_is_taken_so_that_other_sites_cannot_vote(http: TestClient) -> None:
    answer = http.post(
        f"{API}/votes", content=json.dumps(VOTE), headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 415


def test_a_votes_file_that_broke_is_told_without_its_place(
    http: TestClient, workbench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    assert workbench.votes_file is not None
    workbench.votes_file.write_text("{}\n{}\n", encoding="utf-8")
    answer = http.get(f"{API}/votes")
    assert answer.status_code == 500
    assert "holds no vote" in answer.json()["error"]["message"]
    assert str(workbench.votes_file) not in answer.text
    assert str(workbench.votes_file) in caplog.text


def test_without_folders_the_page_stays_and_the_rest_says_so() -> None:
    with client_of(Workbench(runs_folder=None, served=[], votes_file=None)) as http:
        assert http.get(f"{API}/about").json()["keeps_votes"] is False
        assert http.get(f"{API}/runs").json() == {"runs": []}
        assert http.get(f"{API}/samples").status_code == 404
        answer = http.post(f"{API}/votes", json=VOTE)
        assert answer.status_code == 404
        assert "folder" in answer.json()["error"]["message"]


def test_a_server_without_workbench_has_none_of_its_paths() -> None:
    with client_of(None) as http:
        for path in ("/", "/workbench/assets/app.js", f"{API}/about"):
            assert http.get(path).status_code == 404


def test_clients_are_not_told_of_the_pages_own_paths(http: TestClient) -> None:
    assert not [path for path in http.get("/openapi.json").json()["paths"] if "workbench" in path]
