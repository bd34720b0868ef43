// @ts-check
// What all models of a comparison are asked: the last user turn to edit, earlier turns as context.

import { createComposer } from "./composer.js";
import { fill, h } from "./dom.js";
import { foldEarlier } from "./earlier_turns.js";
import { withoutLastAnswer } from "./message_text.js";
import { state, subscribe, update } from "./store.js";

const TEST_IDS = { text: "compare-prompt", send: "compare-run", stop: "compare-stop" };

/** @typedef {import("./store.js").Message} Message */

/**
 * A form that gives all messages to ask to `onRun`.
 * @param {{onRun: (messages: Message[]) => void, onStop: () => void, takesImages: () => boolean}} options
 */
export function createPrompt({ onRun, onStop, takesImages }) {
  const composer = createComposer({
    label: "Prompt for all models",
    placeholder: "What all of them are asked",
    sendLabel: "Run",
    testIds: TEST_IDS,
    takesImages,
    onStop,
    onSend: (content) => {
      keep([...parts().earlier, { role: "user", content }]);
      onRun(state.compare.messages);
    },
  });
  const context = h("div", { class: "compare-context" });
  const take = h("button", { class: "button small quiet", type: "button" }, "Take the chat's messages");
  const head = h(
    "div",
    { class: "bar" },
    h("p", { class: "note" }, "The settings' system prompt and parameters go with it."),
    take,
  );
  /** @type {Message[] | null} */
  let shown = null;

  /** Messages that are shown already. @param {Message[]} messages */
  function keep(messages) {
    shown = messages;
    update({ compare: { messages } });
  }

  function render() {
    take.hidden = withoutLastAnswer(state.draft.messages).length === 0;
    if (state.compare.messages === shown) return;
    shown = state.compare.messages;
    const { earlier, last } = parts();
    composer.setContent(last?.content ?? "");
    fill(context, earlier.length > 0 && contextRow(earlier, () => onRun(earlier)));
  }

  take.addEventListener("click", () => {
    update({ compare: { messages: withoutLastAnswer(state.draft.messages) } });
    composer.focusText();
  });
  subscribe(render);
  render();
  const element = h("div", { class: "compare-prompt" }, context, composer, head);
  return {
    element,
    setBusy: composer.setBusy,
    refresh: composer.refresh,
    /** Whether something else stands in the field than what was run last. */
    isChanged: () => JSON.stringify(composer.getContent()) !== JSON.stringify(parts().last?.content),
  };
}

/**
 * The turns before the last user turn, and that one where it is the last.
 * @returns {{earlier: Message[], last?: Message}}
 */
function parts() {
  const { messages } = state.compare;
  const last = messages[messages.length - 1];
  return last?.role === "user" ? { earlier: messages.slice(0, -1), last } : { earlier: messages };
}

/**
 * @param {Message[]} earlier
 * @param {() => void} onRun
 */
function contextRow(earlier, onRun) {
  const drop = h("button", { class: "button small quiet", type: "button" }, "Leave them out");
  drop.addEventListener("click", () => {
    const { last } = parts();
    update({ compare: { messages: last ? [last] : [] } });
  });
  // A tool's answer asks by itself; nothing has to be written after it.
  const asIs = h("button", { class: "button small", type: "button" }, "Run after the tool's answer");
  asIs.hidden = state.compare.messages.at(-1)?.role !== "tool";
  asIs.addEventListener("click", onRun);
  return h("div", { class: "context-row" }, foldEarlier(earlier), asIs, drop);
}
