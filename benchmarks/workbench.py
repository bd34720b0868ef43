"""How fast the workbench's page appears, and how smooth it stays while a long chat streams.

    python -m benchmarks.workbench [OUTPUT.json]

A real Chromium without a screen asks a real server on this machine; behind it a host streams
scripted words, so that no model's speed is measured. First paint: cold cache, a profile of its own
each time. Smoothness: while an answer of 600 words streams at 50 words/s below 200 turns, the time
between frames, the browser's long tasks, and the time from a key to the next frame.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, expect

from benchmarks.machine import describe_machine
from configs.serve_schema import ServeConfig
from serve.process import start_interface
from serve.settings import ServedVariant, ServerSettings
from tests.serve.tiny_llama import build_tiny_gguf
from tests.workbench.browser import chromium
from tests.workbench.scripted_host import MODEL, Answer, ScriptedHost, run_scripted_host

OUTPUT = Path("benchmarks", "results", "workbench.json")
NUM_LOADS = 10
NUM_TURNS = 200
NUM_WORDS = 600
PAUSE_S = 0.02
MEASURED_MS = 8_000
KEY_EVERY_MS = 100
ANSWER = (
    "## Part {n}\n\nSome **bold** words and `code`.\n\n- one\n- two\n\n"
    "```python\nprint({n})\n```\n\n| a | b |\n|---|---|\n| 1 | {n} |\n"
)
FIRST_PAINT = """() => new Promise((resolve) => {
  const look = () => {
    const [entry] = performance.getEntriesByName("first-contentful-paint");
    if (entry) resolve(entry.startTime); else setTimeout(look, 10);
  };
  look();
})"""
PUT_CHAT = """(turns) => new Promise((resolve, reject) => {
  const open = indexedDB.open("tunery", 1);
  open.onerror = reject;
  open.onsuccess = () => {
    const [id, title, time] = ["long", "A long chat", Date.now()];
    const change = open.result.transaction(["titles", "chats"], "readwrite");
    change.objectStore("titles").put({id, title, time});
    change.objectStore("chats").put({id, title, time, model: "hosted", system: "", parameters: {},
      turns: turns.map((message) => ({message, meta: null}))});
    change.oncomplete = resolve;
  };
})"""
START_MEASURE = """() => {
  const told = window.told = {frames: [], tasks: [], keys: []};
  let last = performance.now();
  const frame = (now) => {
    told.frames.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  const keep = (list) => told.tasks.push(...list.getEntries().map((one) => one.duration));
  new PerformanceObserver(keep).observe({type: "longtask"});
  const end = ({timeStamp}) => told.keys.push(performance.now() - timeStamp);
  const key = (event) => requestAnimationFrame(() => setTimeout(() => end(event)));
  document.addEventListener("keydown", key, true);
}"""


def main() -> None:
    """Measure and write the results."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    with tempfile.TemporaryDirectory() as scratch, run_scripted_host() as host:
        settings = _settings(Path(scratch), host)
        log = Path(scratch) / "server.log"
        with start_interface(settings, timeout_s=60, log=log) as server, chromium() as browser:
            results = {
                "benchmark": "workbench",
                "first_paint": _first_paint(browser, server.url),
                "streaming": _streaming(browser, server.url, host),
                "idle": _streaming(browser, server.url, None),
                "machine": describe_machine(["playwright", "starlette", "uvicorn"]),
                "chromium": browser.version,
            }
    output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


def _settings(folder: Path, host: ScriptedHost) -> ServerSettings:
    config: dict[str, Any] = {
        "port": 0,
        "num_threads": 1,
        "hosted": {"base_url": host.base_url, "model": MODEL},
        "routes": {"hosted": {"to": "hosted"}},
    }
    variant = ServedVariant(name="tiny", artefact=build_tiny_gguf(folder))
    return ServerSettings(variants=[variant], serve=ServeConfig.model_validate(config))


def _first_paint(browser: Browser, url: str) -> dict[str, Any]:
    """Milliseconds from the navigation to the first content, and until one can type."""
    paints, usable = [], []
    for _ in range(NUM_LOADS):
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(url, wait_until="commit")
            page.get_by_test_id("composer-text").wait_for()
            usable.append(float(page.evaluate("performance.now()")))
            paints.append(float(page.evaluate(FIRST_PAINT)))
    return {
        "num_loads": NUM_LOADS,
        "first_contentful_paint_ms": _summary(paints),
        "composer_ready_ms": _summary(usable),
    }


def _streaming(browser: Browser, url: str, host: ScriptedHost | None) -> dict[str, Any]:
    """Frames, long tasks and keys while a chat of 200 turns streams; without a host, at rest."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_test_id("composer-text").wait_for()
        page.wait_for_timeout(300)
        page.evaluate(PUT_CHAT, _turns())
        page.reload()
        page.get_by_test_id("history-item").locator(".history-open").click()
        expect(page.get_by_test_id("message")).to_have_count(NUM_TURNS)
        page.wait_for_timeout(1000)
        if host:
            words = " ".join(f"word{n}" for n in range(NUM_WORDS))
            host.answers["Go on"] = Answer(text=words, pause_s=PAUSE_S)
            page.get_by_test_id("composer-text").fill("Go on")
            page.get_by_test_id("send").click()
            expect(page.get_by_test_id("message").last).to_contain_text("word3")
        return _measure(page)


def _measure(page: Page) -> dict[str, Any]:
    page.get_by_test_id("composer-text").focus()
    page.evaluate(START_MEASURE)
    for _ in range(MEASURED_MS // KEY_EVERY_MS):
        page.keyboard.press("a")
        page.wait_for_timeout(KEY_EVERY_MS)
    told = page.evaluate("window.told")
    return {
        "num_turns": NUM_TURNS,
        "frame_ms": _summary(told["frames"]),
        "key_to_frame_ms": _summary(told["keys"]),
        "num_long_tasks": len(told["tasks"]),
        "longest_task_ms": round(max(told["tasks"], default=0.0), 1),
    }


def _turns() -> list[dict[str, str]]:
    pairs = range(NUM_TURNS // 2)
    return [
        turn
        for n in pairs
        for turn in (
            {"role": "user", "content": f"Question {n}?"},
            {"role": "assistant", "content": ANSWER.format(n=n)},
        )
    ]


def _summary(values: list[float]) -> dict[str, float]:
    median, p95 = np.percentile(values, [50, 95])
    return {
        "num": len(values),
        "median": round(float(median), 1),
        "p95": round(float(p95), 1),
        "max": round(max(values), 1),
    }


if __name__ == "__main__":
    main()
