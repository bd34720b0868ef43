// @ts-check
// One question of an evaluation, what was expected and what both sides answered.

import { h } from "./dom.js";
import { foldEarlier } from "./earlier_turns.js";
import { imagesOf, splitSystem, textOf, withoutLastAnswer } from "./message_text.js";
import { renderScore } from "./metrics.js";
import { state, update, updateDraft } from "./store.js";

/** @type {Record<string, string>} */
export const OUTCOMES = {
  won: "Won by the variant",
  lost: "Lost by the variant",
  both_wrong: "Both wrong",
  both_right: "Both right",
  same: "Same score",
};
/** @type {Record<string, string>} */
const BADGES = { won: "better", lost: "worse", both_wrong: "inconclusive", both_right: "equivalent" };

/**
 * @typedef {import("./store.js").Message} Message
 * @typedef {{name: string, text: string, score: number}} Side
 * @typedef {object} Sample
 * @property {string} id
 * @property {string} task
 * @property {string} outcome
 * @property {Message[]} messages
 * @property {any[]} [tools]
 * @property {string} reference
 * @property {Side} baseline
 * @property {Side} variant
 */

// Shorter texts never scroll, and need not be stopped at with the keyboard.
const MAX_UNCLIPPED = 200;
let numShown = 0;

/** @param {Sample} sample */
export function renderSample(sample) {
  const { id, task, outcome, messages, reference, baseline, variant } = sample;
  const title = h("h3", { id: `sample-${(numShown += 1)}` }, id);
  const last = messages[messages.length - 1];
  return h(
    "article",
    { class: "card sample", "aria-labelledby": title.id, dataset: { testid: "sample" } },
    h(
      "div",
      { class: "card-head" },
      h("span", { class: `badge ${BADGES[outcome] ?? ""}` }, OUTCOMES[outcome] ?? outcome),
      title,
      h("span", { class: "note" }, task),
    ),
    messages.length > 1 && foldEarlier(messages.slice(0, -1)),
    part("Question", textOf(last)),
    imagesOf(last).length > 0 && images(imagesOf(last)),
    reference && part("Reference", reference),
    h("div", { class: "columns" }, answer(variant, "Variant"), answer(baseline, "Baseline")),
    h(
      "div",
      { class: "bar" },
      button("Open in chat", "sample-open", () => openInChat(sample)),
      button("Compare", "sample-compare", () => openInCompare(sample)),
    ),
  );
}

/** @param {string} title @param {string} text */
function part(title, text) {
  return h("div", { class: "sample-part" }, h("h4", {}, title), clipped(text));
}

/** A text that scrolls where it is long. @param {string} text */
function clipped(text) {
  return h("div", { class: "text clipped", tabindex: text.length > MAX_UNCLIPPED ? "0" : null }, text);
}

/** @param {string[]} urls */
function images(urls) {
  const shown = urls.filter((url) => url.startsWith("data:image/"));
  return h(
    "div",
    { class: "message-images" },
    shown.map((src, index) => h("img", { src, alt: `Image ${index + 1} of the question`, loading: "lazy" })),
  );
}

/** @param {Side} side @param {string} role */
function answer({ name, text, score }, role) {
  return h(
    "div",
    { class: "sample-answer" },
    h(
      "div",
      { class: "card-head" },
      h("h4", {}, `${role}: ${name}`),
      h("span", { class: "note figure push" }, `score ${renderScore(score)}`),
    ),
    text ? clipped(text) : h("p", { class: "note" }, "The answer is empty."),
  );
}

/** @param {string} words @param {string} testid @param {() => void} onClick */
function button(words, testid, onClick) {
  const props = { class: "button small", type: "button", dataset: { testid } };
  return h("button", { ...props, on: { click: onClick } }, words);
}

/** @param {Sample} sample */
function openInChat(sample) {
  const { system, messages } = splitSystem(sample.messages);
  const parameters = parametersFor(sample);
  updateDraft({ system, messages: withoutLastAnswer(messages), parameters });
  location.hash = "#chat";
}

/** @param {Sample} sample */
function openInCompare(sample) {
  const { system, messages } = splitSystem(sample.messages);
  update({
    draft: { ...state.draft, system, parameters: parametersFor(sample) },
    compare: { messages: withoutLastAnswer(messages) },
  });
  location.hash = "#compare";
}

/** The parameters as they are set, with the sample's tools instead of others. @param {Sample} sample */
function parametersFor({ tools }) {
  const { tools: _, tool_choice, parallel_tool_calls, ...others } = state.draft.parameters;
  return tools?.length ? { ...others, tools } : others;
}
