// @ts-check
// The chat's layout: history at the side, the turns, and the composer below them.

import { h } from "./dom.js";

/**
 * @param {{history: HTMLElement, thread: HTMLElement, composer: HTMLElement, onNew: () => void}} parts
 */
export function buildFrame({ history, thread, composer, onNew }) {
  const heading = h("h2", {}, "New chat");
  const problem = h("p", { class: "problem", role: "status", hidden: true });
  const startNew = h(
    "button",
    { type: "button", class: "button small", dataset: { testid: "new-chat" }, on: { click: onNew } },
    "New chat",
  );
  const open = h(
    "button",
    {
      type: "button",
      class: "button small only-medium",
      "aria-controls": "history",
      "aria-expanded": "false",
      dataset: { opens: "history" },
    },
    "History",
  );
  const close = h(
    "button",
    { type: "button", class: "button quiet small push only-medium", dataset: { closes: "history" } },
    "Close",
  );
  const side = h(
    "nav",
    { class: "drawer history", id: "history", "aria-label": "History" },
    h("div", { class: "drawer-head" }, h("h2", {}, "History"), close),
    history,
  );
  const element = h(
    "div",
    { class: "chat" },
    side,
    h("div", { class: "backdrop", dataset: { closes: "history" } }),
    h(
      "div",
      { class: "conversation" },
      h("div", { class: "conversation-head" }, open, heading, startNew),
      thread,
      h("div", { class: "composer-area" }, problem, composer),
    ),
  );
  return {
    element,
    /** @param {string} title */
    setTitle(title) {
      heading.textContent = title || "New chat";
    },
    /** @param {string} told */
    setProblem(told) {
      problem.textContent = told;
      problem.hidden = false;
    },
    closeHistory() {
      if (side.classList.contains("open")) close.click();
    },
  };
}

/** What stands where nothing has been asked yet. @param {any} model */
export function welcome(model) {
  return h(
    "div",
    { class: "welcome" },
    h("h3", {}, model ? `Ask ${model.id}` : "No model answers here"),
    model?.description && h("p", { class: "note" }, model.description),
    h("p", { class: "note" }, "Enter sends, Shift and Enter begins a line. Chats stay in this browser."),
  );
}
