// @ts-check
// The request that the form makes, as code to copy. The server writes it, so it is what it takes.

import { postJson } from "./api.js";
import { fill, h } from "./dom.js";
import { copyButton } from "./markdown.js";
import { withoutLastAnswer } from "./message_text.js";
import { errorBox } from "./message_view.js";
import { buildBody, state, subscribe } from "./store.js";

const WAIT_MS = 150;
const EXAMPLE = [{ role: "user", content: "Hello" }];
// Long images are shown by their beginnings; what is copied is whole.
const LONG_IMAGE = /(data:image\/[a-z]+;base64,[A-Za-z0-9+/]{32})[A-Za-z0-9+/=]{200,}/g;

/** @typedef {{id: string, title: string, language: string, code: string}} Call */

/** @param {HTMLElement} container */
export function mount(container) {
  const url = `${location.origin}/v1`;
  const example = h("p", { class: "notice" }, "The chat is empty, so the call asks an example.");
  const problem = h("div", { class: "slot" });
  const code = createCode();
  container.append(
    h(
      "div",
      { class: "view" },
      h(
        "div",
        { class: "view-head" },
        h("h2", {}, "API"),
        h("span", { class: "note" }, "The request as the chat and the settings stand, for your own program."),
      ),
      h(
        "dl",
        { class: "facts" },
        fact("Base URL", h("code", {}, url), copyButton(() => url, { "aria-label": "Copy the base URL" })),
        fact("Key", keyNote()),
      ),
      example,
      problem,
      code.element,
    ),
  );

  let shown = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  subscribe(() => {
    clearTimeout(timer);
    if (state.tab === "api") timer = setTimeout(refresh, WAIT_MS);
  });
  if (state.tab === "api") refresh();

  async function refresh() {
    const messages = withoutLastAnswer(state.draft.messages);
    example.hidden = messages.length > 0;
    const body = buildBody({ messages: messages.length ? messages : EXAMPLE });
    const asked = JSON.stringify({ url, body });
    if (!body.model || asked === shown) return;
    shown = asked;
    try {
      const { calls } = await postJson("/workbench/api/calls", { url, body });
      if (asked !== shown) return;
      fill(problem);
      code.show(calls);
    } catch (error) {
      if (asked !== shown) return;
      shown = "";
      fill(problem, errorBox(error));
      code.show([]);
    }
  }
}

/** @param {string} name @param {...HTMLElement} said */
function fact(name, ...said) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, said));
}

function keyNote() {
  return h(
    "div",
    {},
    h("code", {}, "export TUNERY_KEY=…"),
    h(
      "p",
      { class: "hint" },
      "The code reads the key from this environment variable; in PowerShell it is set by ",
      h("code", {}, '$env:TUNERY_KEY = "…"'),
      ". A server that asks for no keys takes any text.",
    ),
  );
}

/** Tabs, one for each kind of client, above the code of the chosen one. */
function createCode() {
  /** @type {Call[]} */
  let calls = [];
  let chosen = "curl";
  const tabs = h("div", { class: "segmented", role: "tablist", "aria-label": "Kind of client" });
  const language = h("span");
  const block = h("pre", { class: "code-block", tabindex: "0", dataset: { testid: "call-code" } });
  const shortened = h("p", { class: "hint" }, "Images are shortened here; Copy gives the whole request.");
  const current = () => calls.find(({ id }) => id === chosen) ?? calls[0];
  const copy = copyButton(() => current().code, { dataset: { testid: "copy-call" } });
  const panel = h(
    "div",
    { role: "tabpanel", id: "call-panel" },
    h(
      "div",
      { class: "code" },
      h("div", { class: "code-head" }, language, copy),
      block,
    ),
    shortened,
  );
  const element = h("div", { class: "calls", hidden: true }, tabs, panel);

  function render() {
    element.hidden = calls.length === 0;
    if (!calls.length) return;
    const call = current();
    chosen = call.id;
    language.textContent = call.language;
    const text = call.code.replace(LONG_IMAGE, "$1…");
    shortened.hidden = text === call.code;
    block.textContent = text;
    block.setAttribute("aria-label", `${call.title} code`);
    panel.setAttribute("aria-labelledby", `call-tab-${chosen}`);
    for (const tab of tabs.querySelectorAll("button")) {
      const isChosen = tab.id === `call-tab-${chosen}`;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
    }
  }

  /** @param {string} id */
  function choose(id) {
    chosen = id;
    render();
  }

  tabs.addEventListener("keydown", (event) => {
    const index = calls.findIndex(({ id }) => id === chosen);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const end = { Home: 0, End: calls.length - 1 }[event.key];
    if (step === undefined && end === undefined) return;
    event.preventDefault();
    choose(calls[end ?? (index + (step ?? 0) + calls.length) % calls.length].id);
    document.getElementById(`call-tab-${chosen}`)?.focus();
  });

  return {
    element,
    /** @param {Call[]} found */
    show(found) {
      const isSame = found.map(({ id }) => id).join() === calls.map(({ id }) => id).join();
      calls = found;
      if (!isSame) fill(tabs, calls.map((call) => tab(call, choose)));
      render();
    },
  };
}

/** @param {Call} call @param {(id: string) => void} onChoose */
function tab({ id, title }, onChoose) {
  return h(
    "button",
    {
      class: "button",
      type: "button",
      role: "tab",
      id: `call-tab-${id}`,
      "aria-controls": "call-panel",
      dataset: { testid: `call-tab-${id}` },
      on: { click: () => onChoose(id) },
    },
    title,
  );
}
