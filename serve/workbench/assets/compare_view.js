// @ts-check
// The same prompt to several models at once: their answers, figures and differences side by side.

import { askForVote, createTotals, shuffled } from "./blind_vote.js";
import { Column } from "./compare_column.js";
import { createPrompt } from "./compare_prompt.js";
import { fill, h } from "./dom.js";
import { announce } from "./message_view.js";
import { createPicks } from "./model_picks.js";
import { buildBody, findModel, state, subscribe } from "./store.js";
import { WordDiff } from "./word_diff.js";

/** @typedef {import("./store.js").Message} Message */

const TEXT_FIELDS = "input, textarea, select, [contenteditable]";
const HIDDEN_ORDER = "The two models answer in an order that is hidden until you have voted.";
const NO_VOTE = "Not both answered to the end, so there is nothing to vote on.";

/** @param {HTMLElement} container */
export function mount(container) {
  /** @type {Column[]} */
  let columns = [];
  /** @type {ReturnType<typeof askForVote> | null} */
  let vote = null;
  let isBusy = false;

  const blind = h("input", { type: "checkbox", dataset: { testid: "blind-toggle" } });
  const blindHint = h("span", { class: "note" });
  const picks = createPicks({ onChange: () => prompt.refresh() });
  const diff = new WordDiff();
  const totals = createTotals();
  const answers = h("div", { class: "columns compare-columns" });
  const voting = h("div", { class: "voting" });
  const problem = h("p", { class: "problem", role: "alert" });
  const prompt = createPrompt({
    onRun: run,
    onStop: () => columns.forEach((column) => column.stop()),
    takesImages: () => picks.names().every((name) => findModel(name)?.capabilities.vision),
  });
  const pickRow = h("div", { class: "pick-row" }, picks.element);
  const modes = h(
    "div",
    { class: "bar" },
    h("label", { class: "choice" }, blind, "Blind vote"),
    blindHint,
    h("div", { class: "push" }, diff.toggle),
  );
  container.append(
    h(
      "div",
      { class: "view wide compare" },
      h(
        "div",
        { class: "view-head" },
        h("h2", {}, "Compare"),
        h("span", { class: "note" }, "One prompt, two to four models."),
      ),
      pickRow,
      prompt.element,
      modes,
      problem,
      answers,
      voting,
      diff.element,
    ),
  );

  /** @param {Message[]} messages */
  async function run(messages) {
    if (isBusy) return;
    const names = picks.names();
    const isBlind = blind.checked;
    problem.textContent =
      isBlind && names[0] === names[1] ? "Choose two different models for a blind vote." : "";
    if (problem.textContent) return;
    columns = isBlind
      ? shuffled(names).map((name, index) => hiddenColumn(name, "AB"[index]))
      : names.map((name, index) => new Column(name, { label: labelOf(name, index, names) }));
    const bodies = columns.map(({ model }) => buildBody({ model, messages, stream: true }));
    diff.setSides([]);
    vote = null;
    fill(voting);
    fill(answers, columns.map(({ element }) => element));
    if (isBlind) fill(pickRow, h("p", { class: "note" }, HIDDEN_ORDER));
    setBusy(true);
    await Promise.all(columns.map((column, index) => column.run(bodies[index])));
    setBusy(false);
    if (isBlind) showHidden(bodies[0]);
    announce("All answers are complete.");
    diff.setSides(columns.flatMap(({ label, text }) => (text === null ? [] : [{ label, text }])));
  }

  /** Both hidden answers at the same moment, with the question which is better. @param {any} body */
  function showHidden(body) {
    for (const column of columns) column.showAnswer();
    if (!columns.every(({ isWhole }) => isWhole)) {
      for (const column of columns) column.reveal();
      fill(voting, h("p", { class: "notice" }, NO_VOTE));
      openPicks();
      return;
    }
    const isTyping = document.activeElement?.matches(TEXT_FIELDS) && prompt.isChanged();
    vote = askForVote({ columns, body, onEnd: openPicks });
    fill(voting, vote.element);
    if (!isTyping) vote.element.focus({ preventScroll: true });
  }

  /** Names may be seen again. */
  function openPicks() {
    vote = null;
    fill(pickRow, picks.element);
    showTotals();
  }

  function showTotals() {
    totals.element.remove();
    if (!blind.checked) return;
    voting.append(totals.element);
    totals.refresh();
  }

  /** @param {boolean} busy */
  function setBusy(busy) {
    isBusy = busy;
    blind.disabled = busy || !canVote();
    prompt.setBusy(busy);
  }

  blind.addEventListener("change", () => {
    if (blind.checked) picks.limitTo(2);
    else picks.lift();
    problem.textContent = "";
    if (vote) {
      // Nobody is asked any more, so the answers have names again.
      columns.forEach((column) => column.reveal());
      fill(voting);
      openPicks();
    } else showTotals();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = /** @type {Element} */ (event.target).matches(TEXT_FIELDS);
    if (!vote || state.tab !== "compare" || isTyping) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (vote.press(event.key)) event.preventDefault();
  });
  subscribe(render);
  render();

  function render() {
    blind.disabled = isBusy || !canVote();
    blindHint.textContent = hintOf();
  }
}

/** @param {string} name @param {string} letter */
function hiddenColumn(name, letter) {
  return new Column(name, { label: `Answer ${letter}`, isHidden: true });
}

function canVote() {
  return Boolean(state.about?.keeps_votes) && state.models.length >= 2;
}

function hintOf() {
  if (state.about && !state.about.keeps_votes) return "This server keeps no votes.";
  if (state.models.length < 2) return "Needs two models.";
  return "Two answers without names; you say which is better.";
}

/**
 * What a column is called: the model's name, and its place where it stands in several.
 * @param {string} model
 * @param {number} index
 * @param {string[]} all
 */
function labelOf(model, index, all) {
  const isTwice = all.filter((name) => name === model).length > 1;
  return isTwice ? `${model} (${index + 1})` : model;
}
