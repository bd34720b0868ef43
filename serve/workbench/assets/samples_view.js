// @ts-check
// Questions of a run's last evaluation with both sides' answers, to look at and to start from.

import { getJson } from "./api.js";
import { fill, h } from "./dom.js";
import { errorBox } from "./message_view.js";
import { count, counted } from "./metrics.js";
import { OUTCOMES, renderSample } from "./sample_card.js";
import { state } from "./store.js";
import { whenShown } from "./when_shown.js";

const PAGE = 20;
const WAIT_MS = 250;

/** @param {HTMLElement} container */
export function mount(container) {
  const filters = createFilters(() => load(0));
  const list = h("div", { class: "samples" });
  const found = h("p", { class: "note", role: "status" });
  const pager = createPager((offset) => load(offset).then(() => list.scrollIntoView({ block: "start" })));
  container.append(
    h(
      "div",
      { class: "view" },
      h(
        "div",
        { class: "view-head" },
        h("h2", {}, "Samples"),
        h("span", { class: "note" }, "What the last evaluation asked, and what both sides answered."),
      ),
      filters.element,
      found,
      list,
      pager.element,
    ),
  );
  let numAsked = 0;

  /** @param {number} offset */
  async function load(offset) {
    const asked = (numAsked += 1);
    const query = new URLSearchParams({ ...filters.values(), offset: String(offset), limit: String(PAGE) });
    list.setAttribute("aria-busy", "true");
    try {
      const { tasks, total, samples } = await getJson(`/workbench/api/samples?${query}`);
      if (asked !== numAsked) return;
      filters.setTasks(tasks);
      found.textContent = counted(total, "sample");
      found.hidden = total === 0;
      fill(list, samples.length ? samples.map(renderSample) : empty(tasks.length > 0));
      pager.show(offset, samples.length, total);
    } catch (error) {
      if (asked !== numAsked) return;
      found.textContent = "";
      fill(list, errorBox(error));
      pager.show(0, 0, 0);
      throw error;
    } finally {
      if (asked === numAsked) list.removeAttribute("aria-busy");
    }
  }

  whenShown("samples", async () => {
    const { runs } = await getJson("/workbench/api/runs").catch(() => ({ runs: [] }));
    const evaluated = runs.filter((/** @type {any} */ run) => run.verdict !== null);
    const names = evaluated.map((/** @type {any} */ run) => run.name);
    filters.setRuns([...new Set([...(state.about?.runs ?? []), ...names])]);
    await load(0);
  });
}

/** @param {boolean} hasOthers */
function empty(hasOthers) {
  const words = hasOthers
    ? "No sample is like that. Search for other words, or choose all outcomes."
    : "There are no samples yet. They come with an evaluation: tunery evaluate.";
  return h("p", { class: "empty" }, words);
}

/** Which samples are shown. @param {() => Promise<void>} onChange */
function createFilters(onChange) {
  const change = () => {
    onChange().catch(() => {});
  };
  const run = h("select", { id: "samples-run", on: { change } });
  const task = h("select", { id: "samples-task", on: { change } });
  const outcome = h(
    "select",
    { id: "samples-outcome", on: { change } },
    options("All outcomes", OUTCOMES),
  );
  const search = h("input", {
    id: "samples-search",
    type: "search",
    placeholder: "Words of question or answers",
  });
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(change, WAIT_MS);
  });
  const runField = field("Run", run);
  const taskField = field("Task", task);
  return {
    element: h(
      "div",
      { class: "bar filters", role: "search" },
      runField,
      taskField,
      field("Outcome", outcome),
      field("Search", search),
    ),
    values: () => ({
      ...(run.value ? { run: run.value } : {}),
      ...(task.value ? { task: task.value } : {}),
      ...(outcome.value ? { outcome: outcome.value } : {}),
      ...(search.value.trim() ? { search: search.value.trim() } : {}),
    }),
    /** @param {string[]} names */
    setRuns(names) {
      const chosen = run.value;
      fill(run, names.map((name) => h("option", {}, name)));
      if (names.includes(chosen)) run.value = chosen;
      runField.hidden = names.length < 2;
    },
    /** @param {string[]} names */
    setTasks(names) {
      const chosen = task.value;
      fill(task, options("All tasks", Object.fromEntries(names.map((name) => [name, name]))));
      task.value = names.includes(chosen) ? chosen : "";
      taskField.hidden = names.length < 2 && !chosen;
    },
  };
}

/** @param {string} all @param {Record<string, string>} titles by value */
function options(all, titles) {
  return [
    h("option", { value: "" }, all),
    Object.entries(titles).map(([value, title]) => h("option", { value }, title)),
  ].flat();
}

/** @param {string} label @param {HTMLElement} control */
function field(label, control) {
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control);
}

/** Which part of the list is shown. @param {(offset: number) => Promise<void>} onTurn */
function createPager(onTurn) {
  let start = 0;
  // The server cuts pages of large samples short.
  let next = 0;
  const turn = (/** @type {number} */ offset) => onTurn(offset).catch(() => {});
  const back = button("Previous", () => turn(Math.max(0, start - PAGE)));
  const forth = button("Next", () => turn(next));
  const place = h("span", { class: "note figure", role: "status" });
  const element = h("nav", { class: "bar", "aria-label": "Pages", hidden: true }, back, forth, place);
  return {
    element,
    /** @param {number} offset @param {number} num shown @param {number} total */
    show(offset, num, total) {
      start = offset;
      next = offset + num;
      back.disabled = start === 0;
      forth.disabled = next >= total;
      element.hidden = num === total;
      place.textContent = `${count(start + 1)} to ${count(next)} of ${count(total)}`;
    },
  };
}

/** @param {string} words @param {() => void} onClick */
function button(words, onClick) {
  return h("button", { class: "button", type: "button", on: { click: onClick } }, words);
}
