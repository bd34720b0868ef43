"""The request builder: what it shows is the model's schema, and what is set is what is sent."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.workbench.conftest import HOSTED
from tests.workbench.run_folder import RUN
from tests.workbench.scripted_host import Answer, ScriptedHost
from tests.workbench.workbench_page import WorkbenchPage

TOOL = {
    "type": "function",
    "function": {
        "name": "find_river",
        "description": "",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}


def schema_of(url: str, model: str) -> dict[str, Any]:
    answer = httpx.get(f"{url}/v1/models/{model}").raise_for_status().json()
    schema: dict[str, Any] = answer["json_request_schema"]
    return schema


def number_of(property: dict[str, Any]) -> dict[str, Any] | None:
    """The numeric form of a property, if it has one."""
    for form in (property, *property.get("anyOf", [])):
        types = form.get("type")
        if {"number", "integer"} & set(types if isinstance(types, list) else [types]):
            return {**form, **property}
    return None


def test_the_form_has_the_schemas_fields_ranges_and_defaults(
    workbench: WorkbenchPage, url: str
) -> None:
    workbench.choose_model(RUN)
    workbench.unfold_settings()
    schema = schema_of(url, RUN)
    edited = {"model", "messages", "stream", "stream_options", "tools", "response_format"}
    names = set(schema["properties"]) - edited
    fields = workbench.page.locator("[data-testid^=param-]")
    shown = fields.evaluate_all("all => all.map((one) => one.dataset.testid.slice(6))")
    assert set(shown) == names
    basic = {name for name in schema["basic"] if name in names}
    assert basic
    assert set(shown[: len(basic)]) == basic
    num_checked = 0
    for name in sorted(names):
        form = number_of(schema["properties"][name])
        if form is None:
            continue
        num_checked += 1
        field = workbench.page.get_by_test_id(f"param-{name}")
        expect(field).to_have_value("")
        default = form.get("default")
        expect(field).to_have_attribute(
            "placeholder", f"{default:g}" if default is not None else "not set"
        )
        if name not in ("seed", "random_seed") and form["maximum"] <= 1_000_000:
            assert float(field.get_attribute("min") or "nan") == form["minimum"]
            assert float(field.get_attribute("max") or "nan") == form["maximum"]
    assert num_checked >= 8


def test_only_what_was_set_is_sent_and_reaches_the_host(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    workbench.exchange("Plain")
    plain = {"model", "messages", "stream", "stream_options"}
    assert set(workbench.sent[0]) == plain
    workbench.part("system-prompt").fill("Be brief.\nBe kind.")
    workbench.set_parameters(temperature=0.25, max_tokens=33, top_p=0.5, seed=7)
    workbench.exchange("Set")
    sent = workbench.sent[1]
    assert set(sent) == plain | {"temperature", "max_tokens", "top_p", "seed"}
    assert sent["messages"][0] == {"role": "system", "content": "Be brief.\nBe kind."}
    got = host.requests[1]
    assert got["messages"] == sent["messages"]
    names = ("temperature", "max_tokens", "top_p", "seed")
    assert [got[name] for name in names] == [0.25, 33, 0.5, 7]
    workbench.page.get_by_role("button", name="Reset temperature").click()
    workbench.exchange("Reset")
    assert set(workbench.sent[2]) == plain | {"max_tokens", "top_p", "seed"}
    workbench.page.get_by_role("button", name="Reset all").click()
    workbench.exchange("All")
    assert set(workbench.sent[3]) == plain
    assert workbench.sent[3]["messages"][0]["role"] == "user"


def test_texts_choices_and_switches_are_sent_as_their_types(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    workbench.unfold_settings()
    stop = workbench.part("param-stop")
    stop.get_by_role("button", name="Add").click()
    stop.get_by_role("textbox").last.fill("END")
    workbench.part("param-safe_prompt").check()
    workbench.part("param-user").fill("somebody")
    workbench.exchange("Go")
    sent = workbench.sent[0]
    assert (sent["stop"], sent["safe_prompt"], sent["user"]) == (["END"], True, "somebody")
    assert host.requests[0]["stop"] == ["END"]


def test_what_lies_outside_of_a_range_is_told(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.watch.takes_errors = True
    workbench.set_parameters(temperature=3)
    field = workbench.part("param-temperature")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(workbench.page.locator("#param-temperature-problem")).to_have_text("At most 2.")
    workbench.ask("Go")
    expect(workbench.part("error")).to_contain_text("temperature")
    assert host.requests == []


@pytest.mark.parametrize("broken", ["[{", '{"type": "function"}', '"tools"'])
def test_the_tools_editor_refuses_what_is_no_list(
    workbench: WorkbenchPage, host: ScriptedHost, broken: str
) -> None:
    workbench.unfold_settings()
    editor = workbench.part("tools-editor")
    editor.fill(json.dumps([TOOL]))
    editor.fill(broken)
    expect(editor).to_have_attribute("aria-invalid", "true")
    workbench.exchange("Go")
    assert workbench.sent[0]["tools"] == [TOOL]
    editor.fill("")
    expect(editor).to_have_attribute("aria-invalid", "false")
    workbench.exchange("Go")
    assert "tools" not in workbench.sent[1]


def test_calls_of_tools_are_shown_and_answered(
    workbench: WorkbenchPage, host: ScriptedHost
) -> None:
    workbench.unfold_settings()
    workbench.part("tools-editor").fill(json.dumps([TOOL]))
    arguments = '{"name": "Elbe"}'
    call = {"id": "call12345", "function": {"name": "find_river", "arguments": arguments}}
    host.answers["Which?"] = Answer(tool_calls=(call,))
    host.answers["1094 km"] = Answer(text="The Elbe is long.")
    workbench.ask("Which?")
    expect(workbench.part("tool-call")).to_contain_text("find_river")
    expect(workbench.part("tool-call")).to_contain_text("Elbe")
    workbench.part("tool-answer-0").fill("1094 km")
    workbench.part("send-tool-answers").click()
    expect(workbench.answer).to_have_text("The Elbe is long.")
    last = workbench.sent[-1]["messages"]
    assert last[1]["tool_calls"] == [{"type": "function", **call}]
    assert last[2] == {"role": "tool", "tool_call_id": "call12345", "content": "1094 km"}
    assert host.requests[0]["tools"][0]["function"]["name"] == "find_river"


def test_the_answers_form_is_sent(workbench: WorkbenchPage, host: ScriptedHost) -> None:
    workbench.unfold_settings()
    choice = workbench.part("response-format")
    choice.select_option("json_object")
    workbench.exchange("Go")
    assert workbench.sent[0]["response_format"] == {"type": "json_object"}
    assert host.requests[0]["response_format"] == {"type": "json_object"}
    choice.select_option("json_schema")
    schema = {"name": "river", "schema": {"type": "object", "properties": {}, "required": []}}
    workbench.part("response-schema").fill(json.dumps(schema))
    workbench.exchange("Go")
    form = {"type": "json_schema", "json_schema": schema}
    assert workbench.sent[1]["response_format"] == form
    assert host.requests[1]["response_format"]["json_schema"]["schema"] == schema["schema"]
    choice.select_option("")
    workbench.exchange("Go")
    assert "response_format" not in workbench.sent[2]


def test_images_go_as_data_and_only_where_they_are_taken(
    workbench: WorkbenchPage, host: ScriptedHost, tmp_path: Path
) -> None:
    file = tmp_path / "river.png"
    Image.new("RGB", (32, 24), (20, 90, 160)).save(file)
    attach = workbench.page.get_by_role("button", name="Add images").filter(visible=True)
    with workbench.page.expect_file_chooser() as chooser:
        attach.click()
    chooser.value.set_files(file)
    expect(workbench.page.get_by_alt_text("Image 1")).to_be_visible()
    workbench.exchange("What is it?")
    text, image = workbench.sent[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    data = base64.b64encode(file.read_bytes()).decode()
    assert image == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    parts = host.requests[0]["messages"][0]["content"]
    assert parts[1]["image_url"]["url"].startswith("data:image/")
    shown = workbench.turns("user").last.locator("img")
    assert shown.evaluate("one => one.naturalWidth") == 32
    workbench.choose_model(RUN)
    expect(attach).to_have_count(0)


def test_another_models_schema_takes_the_forms_place(workbench: WorkbenchPage, url: str) -> None:
    workbench.unfold_settings()
    assert ("tools" in schema_of(url, RUN)["properties"]) is False
    expect(workbench.part("tools-editor")).to_be_visible()
    workbench.part("tools-editor").fill(json.dumps([TOOL]))
    workbench.choose_model(RUN)
    expect(workbench.part("tools-editor")).to_have_count(0)
    workbench.set_parameters(max_tokens=4)
    workbench.exchange("Hi")
    assert "tools" not in workbench.sent[0]
    assert workbench.sent[0]["model"] == RUN != HOSTED
