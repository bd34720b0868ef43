import dataclasses
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from configs.artefact_paths import base_gguf, variant_gguf
from configs.errors import UserError
from configs.schema import RunConfig
from evals.preflight import (
    Check,
    check_adapter_acts,
    check_hosted,
    check_same_text,
    check_templates,
    preflight_questions,
)
from evals.targets import Target
from tests.evals.conftest import BuildConfig
from tests.evals.recorded_rows import answer, answers_to, build_task, record
from tests.evals.test_recorded_model import run
from tests.loopback import run_app

KEY = "sk-right"
MODELS = ["mistral-small-2503", "mistral-small-2506", "llama-3", "gpt-x"]
Complete = Callable[[dict[str, Any]], Response]


def complete(body: dict[str, Any]) -> Response:
    return JSONResponse(
        {"model": body["model"], "choices": [{"message": {"role": "assistant", "content": "yes"}}]}
    )


def refuse(status: int, message: str, **more: str) -> Complete:
    error = {"message": message, **more}
    return lambda _: JSONResponse(
        {"error": error}, status_code=status, headers={"Retry-After": "0"}
    )


@contextmanager
def serve(
    answer_with: Complete = complete,
    *,
    models: list[str] | None = MODELS,
    certificate: trustme.LeafCert | None = None,
    path: str = "/v1",
) -> Iterator[str]:
    """A host on a free port; its address as base_url."""

    async def chat(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return refuse(401, f"bad key {request.headers.get('authorization')}")({})
        body = await request.json()
        assert body["messages"]
        return answer_with(body)

    async def list_models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name} for name in models or []]})

    routes = [Route(f"{path}/chat/completions", chat, methods=["POST"])]
    if models is not None:
        routes.append(Route(f"{path}/models", list_models))
    with run_app(Starlette(routes=routes), certificate=certificate) as address:
        yield f"{address}{path}"


def target(url: str, *, model: str = "mistral-small-2503", key: str | None = KEY) -> Target:
    return Target("the hosted model", url, model, api_key=key)


def fault(one: Target, timeout_s: float = 5.0) -> UserError:
    with pytest.raises(UserError) as caught:
        check_hosted(one, timeout_s=timeout_s)
    assert one.base_url in (caught.value.where or "")
    assert one.api_key is None or one.api_key not in str(caught.value)
    return caught.value


def test_a_host_that_is_all_right_is_told_in_four_checks() -> None:
    with serve() as url:
        checks = check_hosted(target(f"{url}/"))
    assert [check.name for check in checks] == ["address", "key", "model", "answering model"]
    assert all(check.ok for check in checks)
    assert checks[2].detail == "mistral-small-2503: one of 4 that it lists"


def test_a_host_without_a_models_list_is_fine() -> None:
    with serve(models=None) as url:
        checks = check_hosted(target(url))
    assert all(check.ok for check in checks)
    assert "lists no models" in checks[2].detail


@pytest.mark.parametrize(
    ("told", "ok"),
    [
        ("mistral-small-2503-20250317", True),
        ("mistralai/Mistral-Small-2503", True),
        ("mistral-small-2506", False),
        (None, False),
    ],
)
def test_a_host_that_answers_with_another_model_is_a_warning(told: str | None, ok: bool) -> None:
    def other(body: dict[str, Any]) -> Response:
        return JSONResponse({"model": told, "choices": [{"message": {"content": "yes"}}]})

    with serve(other) as url:
        check = check_hosted(target(url))[-1]
    assert check.ok == ok
    assert told is None or told in check.detail


@pytest.mark.parametrize(
    ("answer_with", "what", "remedy"),
    [
        (refuse(402, "pay up"), "no credit (status 402): pay up", "top the account up"),
        (
            refuse(429, "You exceeded", code="insufficient_quota"),
            "no credit (status 429): You exceeded",
            "top the account up",
        ),
        (refuse(429, "slow down"), "too many requests of it just now: slow down", "wait a little"),
        (refuse(500, "boom"), "the host fails (status 500): boom", "try again later"),
        (
            refuse(400, "temperature is too hot"),
            "refuses the request (status 400): temperature is too hot",
            "",
        ),
        (lambda _: HTMLResponse("<h1>hi</h1>"), "not with a completion", "/chat/completions"),
        (lambda _: JSONResponse(["x"]), "not with a completion", "/chat/completions"),
        (lambda _: RedirectResponse("https://else.example/v1"), "https://else.example", "base_url"),
    ],
)
def test_refusals_are_told_apart(answer_with: Complete, what: str, remedy: str) -> None:
    with serve(answer_with) as url:
        error = fault(target(url))
    assert what in error.what
    assert remedy in (error.remedy or "")


def test_a_busy_host_is_waited_for() -> None:
    num_asked = 0

    def busy_once(body: dict[str, Any]) -> Response:
        nonlocal num_asked
        num_asked += 1
        return refuse(429, "slow down")(body) if num_asked == 1 else complete(body)

    with serve(busy_once) as url:
        assert all(check.ok for check in check_hosted(target(url)))
    assert num_asked == 2


def test_a_wrong_key_and_a_missing_one_are_told_apart() -> None:
    with serve() as url:
        wrong = fault(target(url, key="sk-wrong"))
        missing = fault(target(url, key=None))
    assert "refuses the key (status 401)" in wrong.what
    assert "[key]" in wrong.what
    assert "wants a key (status 401)" in missing.what


def test_a_wrong_model_is_told_with_names_that_are_near() -> None:
    with serve(refuse(404, "Model not found: mistral-smal-2503")) as url:
        error = fault(target(url, model="mistral-smal-2503"))
    assert "no model mistral-smal-2503 among its 4; near it: mistral-small-2503" in error.what
    assert "llama-3" not in error.what
    assert "evaluation.baseline.model" in (error.remedy or "")


@pytest.mark.parametrize("status", [404, 400])
def test_a_wrong_model_is_told_where_the_host_has_no_list(status: int) -> None:
    with serve(refuse(status, "Invalid model: nope"), models=None) as url:
        error = fault(target(url, model="nope"))
    assert "does not know the model nope: Invalid model: nope" in error.what


@pytest.mark.parametrize("models", [MODELS, None])
def test_a_wrong_path_is_no_wrong_model(models: list[str] | None) -> None:
    with serve(models=models) as url:
        error = fault(target(f"{url}/v2"))
    assert "nothing that completes at this address (status 404)" in error.what
    assert "base_url" in (error.remedy or "")


def test_a_refused_connection_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "nothing listens at this port" in fault(target(f"http://127.0.0.1:{port}/v1")).what


def test_an_unknown_name_is_told() -> None:
    error = fault(target("http://no-such-host.invalid/v1"))
    assert "the name no-such-host.invalid is not known" in error.what


def test_a_host_that_says_nothing_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        error = fault(target(url), timeout_s=0.3)
    assert "does not answer in time" in error.what


def test_a_certificate_that_nobody_vouches_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    with serve(certificate=authority.issue_cert("127.0.0.1")) as url:
        error = fault(target(url))
        assert "certificate is not trusted" in error.what
        assert "SSL_CERT_FILE" in (error.remedy or "")
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert all(check.ok for check in check_hosted(target(url)))
        assert "certificate" not in fault(target(url.replace("https", "http"))).what


def test_tls_with_a_host_that_has_none_is_told() -> None:
    with serve() as url:
        assert "no TLS with the host" in fault(target(url.replace("http", "https"))).what


def test_a_proxy_does_not_stand_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serve() as url:
        assert all(check.ok for check in check_hosted(target(url)))


def test_preflight_questions_are_spread_and_not_sampled() -> None:
    task = build_task(20, temperature=0.9, num_epochs=4)
    few = preflight_questions(task, 4)
    assert [question.id for question in few.questions] == ["q/0", "q/5", "q/10", "q/15"]
    assert (few.temperature, few.num_epochs) == (0.0, 1)
    assert len(preflight_questions(build_task(3)).questions) == 3


def test_an_adapter_that_changes_nothing_is_an_error() -> None:
    answers = answers_to([(build_task(3), False)])["terms"]
    fresh_ids = [
        dataclasses.replace(
            one, tool_calls=tuple({**call, "id": "other"} for call in one.tool_calls)
        )
        for one in answers
    ]
    mine = Target("mine", "http://127.0.0.1:1/v1", "mine")
    with pytest.raises(UserError, match=r"adapter is not acting \(all 3 answers are equal\)"):
        check_adapter_acts(answers, fresh_ids, mine)
    fresh_ids[2] = dataclasses.replace(fresh_ids[2], text="Skin")
    assert check_adapter_acts(answers, fresh_ids, mine) == Check(
        "adapter", True, "1 of 3 answers differ from the base's"
    )


def test_only_what_both_were_asked_is_compared() -> None:
    questions = build_task(3).questions
    base = [answer(questions[0])]
    variant = [answer(question, text="Skin") for question in questions[1:]]
    mine = Target("mine", "http://127.0.0.1:1/v1", "mine")
    with pytest.raises(UserError, match="all 1 answers"):
        check_adapter_acts(base, [*variant, answer(questions[0])], mine)
    with pytest.raises(AssertionError):
        check_adapter_acts(base, variant, mine)


def test_the_logs_tell_whether_both_sides_got_the_same(tmp_path: Path) -> None:
    task = build_task(3)
    for side in ("baseline", "variant"):
        run(record(tmp_path / f"{side}.jsonl", task), task, tmp_path / side)
    check = check_same_text(tmp_path / "baseline", tmp_path / "variant", ["terms"])
    assert (check.ok, check.detail) == (True, "both sides got the same 3 requests, by their logs")
    with pytest.raises(UserError, match="there is no log of task other"):
        check_same_text(tmp_path / "baseline", tmp_path / "variant", ["other"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_tokens": 17}, '"max_tokens": 17'),
        ({"temperature": 0.5}, '"temperature": 0.5'),
        ({"questions": build_task(2).questions}, "the sides were asked 3 and 2 questions"),
    ],
)
def test_sides_that_were_asked_otherwise_are_told(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    for side, task in (("baseline", build_task(3)), ("variant", build_task(3, **change))):
        run(record(tmp_path / f"{side}.jsonl", task), task, tmp_path / side)
    with pytest.raises(UserError) as caught:
        check_same_text(tmp_path / "baseline", tmp_path / "variant", ["terms"])
    assert told in caught.value.what


def test_another_text_or_tool_is_told_with_its_question(tmp_path: Path) -> None:
    task = build_task(3)
    questions = list(task.questions)
    tool = json.loads(json.dumps(questions[1].tools[0]).replace("^[a-z]+$", "^[a-z]*$"))
    questions[1] = dataclasses.replace(questions[1], tools=(tool,))
    other = dataclasses.replace(task, questions=tuple(questions))
    for side, one in (("baseline", task), ("variant", other)):
        run(record(tmp_path / f"{side}.jsonl", one), one, tmp_path / side)
    with pytest.raises(UserError, match=r"task terms, question q/1: line \d+ is .*a-z\]\*"):
        check_same_text(tmp_path / "baseline", tmp_path / "variant", ["terms"])


def write_gguf(file: Path, template: str | None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, "llama")
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def config(build_config: BuildConfig) -> RunConfig:
    return build_config()


def test_equal_templates_are_told(tmp_path: Path, config: RunConfig) -> None:
    for file in (variant_gguf(tmp_path, config), base_gguf(tmp_path, config)):
        write_gguf(file, "{{ messages }}\n")
    (tmp_path / "merged").mkdir()
    settings = json.dumps({"chat_template": "{{ messages }}\n"})
    (tmp_path / "merged" / "tokenizer_config.json").write_text(settings)
    check = check_templates(tmp_path, config)
    assert check.ok
    assert check.detail.endswith("has that of the base's GGUF and of the merged checkpoint")


def test_a_template_of_another_base_is_refused_with_its_line(
    tmp_path: Path, config: RunConfig
) -> None:
    write_gguf(variant_gguf(tmp_path, config), "one\ntwo\nthree")
    write_gguf(base_gguf(tmp_path, config), "one\n2\nthree")
    with pytest.raises(UserError, match="line 2 is 'two' instead of '2'") as caught:
        check_templates(tmp_path, config)
    assert "base's GGUF" in caught.value.what
    write_gguf(base_gguf(tmp_path, config), None)
    with pytest.raises(UserError, match="line 1 is 'one' instead of nothing"):
        check_templates(tmp_path, config)


def test_a_merged_checkpoint_with_another_template_is_refused(
    tmp_path: Path, config: RunConfig
) -> None:
    write_gguf(variant_gguf(tmp_path, config), "one")
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "chat_template.jinja").write_text("one\ntwo")
    with pytest.raises(UserError, match="merged checkpoint: line 2 is nothing instead of 'two'"):
        check_templates(tmp_path, config)


def test_nothing_to_compare_and_no_template_are_told(tmp_path: Path, config: RunConfig) -> None:
    write_gguf(variant_gguf(tmp_path, config), None)
    assert not check_templates(tmp_path, config).ok
    write_gguf(base_gguf(tmp_path, config), None)
    check = check_templates(tmp_path, config)
    assert (check.ok, "the engine's own" in check.detail) == (True, True)


def test_a_broken_artefact_is_told(tmp_path: Path, config: RunConfig) -> None:
    file = variant_gguf(tmp_path, config)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no gguf at all, and long enough")
    with pytest.raises(UserError, match="cannot read the artefact"):
        check_templates(tmp_path, config)
