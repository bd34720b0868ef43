// @ts-check
// Where one answers the calls that the model has made, in the place of the tools.

import { h } from "./dom.js";

/**
 * @param {any[]} calls
 * @param {(messages: import("./store.js").Message[]) => void} onSend gets a tool's turn for each call
 */
export function toolAnswers(calls, onSend) {
  const boxes = calls.map((_, index) =>
    h("textarea", {
      id: `tool-answer-${index}`,
      class: "mono",
      rows: 2,
      required: true,
      dataset: { testid: `tool-answer-${index}` },
    }),
  );
  const fields = calls.map((call, index) =>
    h(
      "div",
      { class: "field" },
      h("label", { htmlFor: `tool-answer-${index}` }, "Answer of ", h("code", {}, call.function.name)),
      boxes[index],
    ),
  );
  const send = h("button", { class: "button primary", dataset: { testid: "send-tool-answers" } }, "Go on");
  const form = h(
    "form",
    { class: "card", dataset: { testid: "tool-answers" } },
    h("p", { class: "note" }, "The model waits for what its calls give. Write it here, as text or JSON."),
    fields,
    h("div", { class: "bar" }, send),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onSend(
      calls.map((call, index) => ({
        role: "tool",
        tool_call_id: call.id,
        content: boxes[index].value,
      })),
    );
  });
  return form;
}
