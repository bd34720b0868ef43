// @ts-check
// All runs of the folder: how far each is, what was measured, and its reports.

import { getJson, postJson } from "./api.js";
import { fill, h } from "./dom.js";
import { intervalChart } from "./interval_chart.js";
import { lossChart } from "./loss_chart.js";
import { errorBox } from "./message_view.js";
import { renderDifference } from "./metrics.js";
import { state } from "./store.js";
import { whenShown } from "./when_shown.js";

/**
 * @typedef {object} Run
 * @property {string} name
 * @property {string | null} description
 * @property {boolean} is_served
 * @property {Record<string, string>} stages
 * @property {string | null} verdict
 * @property {boolean | null} promote
 * @property {string[]} reasons
 * @property {number | null} delta
 * @property {[number, number] | null} interval
 * @property {string | null} baseline
 * @property {{train: [number, number][], validation: [number, number][]}} losses
 * @property {{title: string, path: string}[]} reports
 */

/** @param {HTMLElement} container */
export function mount(container) {
  const list = h("ul", { class: "cards runs" });
  const message = h("div", { class: "slot" });
  container.append(
    h(
      "div",
      { class: "view" },
      h(
        "div",
        { class: "view-head" },
        h("h2", {}, "Runs"),
        h("span", { class: "note" }, "Reports open in a tab of their own."),
      ),
      message,
      list,
    ),
  );
  whenShown("runs", async () => {
    try {
      // A link carries no key; the cookie that this sets opens the reports.
      if (state.about?.asks_for_keys) await postJson("/workbench/api/session", {});
      const { runs } = await getJson("/workbench/api/runs");
      fill(message, !runs.length && h("p", { class: "empty" }, "There is no run yet."));
      fill(list, runs.map(card));
    } catch (error) {
      fill(message, errorBox(error));
      fill(list);
      throw error;
    }
  });
}

/** @param {Run} run */
function card(run) {
  return h(
    "li",
    { class: "card run", dataset: { testid: "run-card" } },
    h(
      "div",
      { class: "card-head" },
      h("h3", {}, run.name),
      run.is_served && h("span", { class: "badge on" }, "answers here"),
    ),
    run.description && h("p", {}, run.description),
    stages(run.stages),
    run.verdict && verdict(run),
    lossChart(run.losses, run.name) ?? h("p", { class: "note" }, "Nothing has been trained yet."),
    run.reports.length > 0 && reports(run),
  );
}

/** @param {Record<string, string>} states by stage */
function stages(states) {
  return h(
    "ul",
    { class: "stages", "aria-label": "Stages" },
    Object.entries(states).map(([stage, state]) => {
      if (state !== "done") return h("li", { class: "badge" }, `${stage}: ${state}`);
      const mark = h("span", { "aria-hidden": "true" }, "✓ ");
      const word = h("span", { class: "visually-hidden" }, " done");
      return h("li", { class: "badge better" }, mark, stage, word);
    }),
  );
}

/** @param {Run} run */
function verdict({ verdict: word, promote, reasons, delta, interval, baseline }) {
  const kind = ["better", "worse", "equivalent", "inconclusive"].find((one) => word?.startsWith(one));
  return h(
    "div",
    { class: "verdict" },
    h(
      "div",
      { class: "bar" },
      h("span", { class: `badge ${kind ?? ""}` }, word),
      promote !== null && h("strong", {}, promote ? "Promote" : "Do not promote"),
      baseline && h("span", { class: "note" }, `against ${baseline}`),
    ),
    delta !== null && interval && difference(delta, interval),
    reasons.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, "Why"),
        h("ul", {}, reasons.map((reason) => h("li", {}, reason))),
      ),
  );
}

/** @param {number} delta @param {[number, number]} interval */
function difference(delta, [low, high]) {
  const words = `${renderDifference(delta)} points (${renderDifference(low)} to ${renderDifference(high)})`;
  return h(
    "div",
    { class: "difference" },
    h("span", { class: "figure" }, h("strong", {}, "Difference "), words),
    intervalChart(delta, [low, high]),
  );
}

/** @param {Run} run */
function reports({ name, reports: found }) {
  return h(
    "nav",
    { class: "bar reports", "aria-label": `Reports of ${name}` },
    found.map(({ title, path }) =>
      h("a", { class: "button small", href: path, target: "_blank", rel: "noopener" }, `${title} report`),
    ),
  );
}
