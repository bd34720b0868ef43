// @ts-check
// Two answers without names: which is better is asked before it is told whose they are.

import { getJson, postJson } from "./api.js";
import { fill, h } from "./dom.js";
import { announce, errorBox } from "./message_view.js";
import { count } from "./metrics.js";

/** @typedef {import("./compare_column.js").Column} Column */
/** @typedef {"a" | "b" | "tie" | "both_bad"} Choice as the page names them: A stands on the left */

const CHOICES = /** @type {const} */ ([
  ["a", "A is better", "vote-a"],
  ["b", "B is better", "vote-b"],
  ["tie", "Tie", "vote-tie"],
  ["both_bad", "Both bad", "vote-both-bad"],
]);

const SAID = {
  a: "You found A better.",
  b: "You found B better.",
  tie: "You found neither better.",
  both_bad: "You found both bad.",
};

/** The two names in an order that nobody can foresee. @param {string[]} names */
export function shuffled([first, second]) {
  const isTurned = crypto.getRandomValues(new Uint8Array(1))[0] % 2 === 1;
  return isTurned ? [second, first] : [first, second];
}

/**
 * Asks which of two whole answers is better; `onEnd` comes once names may be shown.
 * @param {{columns: Column[], body: any, onEnd: () => void}} options
 *   columns: as they stand on the page; body: what both were asked
 */
export function askForVote({ columns, body, onEnd }) {
  const isSame = areSame(columns);
  const problem = h("div", { class: "slot" });
  const result = h("p", { class: "vote-result", dataset: { testid: "vote-result" }, hidden: true });
  const buttons = CHOICES.map(([choice, words, testid], index) =>
    h(
      "button",
      {
        class: "button",
        type: "button",
        dataset: { testid },
        "aria-keyshortcuts": String(index + 1),
        // Which of two equal answers is better is no question.
        disabled: isSame && (choice === "a" || choice === "b"),
        on: { click: () => vote(choice) },
      },
      words,
      h("kbd", { "aria-hidden": "true" }, String(index + 1)),
    ),
  );
  const skip = h(
    "button",
    {
      class: "button quiet push",
      type: "button",
      dataset: { testid: "vote-skip" },
      on: { click: () => end("No vote.") },
    },
    "Show names without a vote",
  );
  const form = h("div", { class: "bar", role: "group", "aria-label": "Your vote" }, buttons, skip);
  const words = "Both answers are the same, word for word.";
  const same = isSame && h("p", { class: "notice", dataset: { testid: "same-answers" } }, words);
  const element = h(
    "section",
    { class: "card vote", "aria-label": "Vote", tabindex: "-1" },
    same,
    form,
    problem,
    result,
  );
  let isOpen = true;

  /** @param {Choice} choice */
  async function vote(choice) {
    if (!isOpen) return;
    isOpen = false;
    try {
      await postJson("/workbench/api/votes", posted(choice, columns, body));
    } catch (error) {
      isOpen = true;
      fill(problem, errorBox(error));
      return;
    }
    end(SAID[choice]);
  }

  /** @param {string} words */
  function end(words) {
    isOpen = false;
    form.remove();
    fill(problem);
    for (const column of columns) column.reveal();
    const names = `A was ${columns[0].model}, B was ${columns[1].model}.`;
    result.hidden = false;
    result.textContent = `${words} ${names}`;
    announce(result.textContent);
    element.focus();
    onEnd();
  }

  return {
    element,
    /** @param {string} key of the keyboard; returns whether it was a vote's */
    press(key) {
      const button = isOpen ? buttons[["1", "2", "3", "4"].indexOf(key)] : undefined;
      button?.click();
      return button !== undefined;
    },
  };
}

/** @param {Column[]} columns */
function areSame(columns) {
  const [first, second] = columns.map(({ text }) => text);
  return first === second;
}

/**
 * The vote as the server keeps it: a and b sorted by name, so that only `shown_first` tells the
 * order on the page.
 * @param {Choice} choice
 * @param {Column[]} columns
 * @param {any} body
 */
function posted(choice, columns, body) {
  const { model, messages, tools, stream, stream_options, ...parameters } = body;
  const [left, right] = columns;
  const isTurned = left.model > right.model;
  const [a, b] = isTurned ? [right, left] : [left, right];
  /** @type {Record<string, string>} */
  const turned = isTurned ? { a: "b", b: "a" } : {};
  return {
    messages,
    ...(tools ? { tools } : {}),
    parameters,
    a: votedAnswer(a),
    b: votedAnswer(b),
    choice: turned[choice] ?? choice,
    shown_first: isTurned ? "b" : "a",
  };
}

/** @param {Column} column */
function votedAnswer({ model, answer }) {
  return { model, target: answer?.target ?? null, message: answer?.message };
}

/** All votes so far, as a table that `refresh` brings up to date. */
export function createTotals() {
  const element = h("section", { class: "card", "aria-label": "Votes so far", hidden: true });
  return {
    element,
    async refresh() {
      try {
        const { pairs } = await getJson("/workbench/api/votes");
        element.hidden = pairs.length === 0;
        const region = { class: "scroll", role: "region", tabindex: "0", "aria-label": "Table of votes" };
        fill(element, h("h3", {}, "Votes so far"), h("div", region, table(pairs)));
      } catch (error) {
        element.hidden = false;
        fill(element, errorBox(error));
      }
    },
  };
}

/** @param {any[]} pairs */
function table(pairs) {
  const heads = ["Models", "Better", "Tie", "Both bad", "Votes"];
  const rows = pairs.map((pair) =>
    h(
      "tr",
      { dataset: { testid: "vote-totals" } },
      h("th", { scope: "row" }, h("div", {}, pair.a), h("div", {}, pair.b)),
      h("td", { class: "number" }, h("div", {}, count(pair.num_a)), h("div", {}, count(pair.num_b))),
      [pair.num_tie, pair.num_both_bad, pair.num_votes].map((number) =>
        h("td", { class: "number" }, count(number)),
      ),
    ),
  );
  const head = heads.map((words, index) => h("th", { scope: "col", class: index ? "number" : "" }, words));
  return h("table", { class: "data votes" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows));
}
