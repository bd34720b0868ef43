// @ts-check
// Which models a comparison asks: two to four of those that the server has.

import { fill, h } from "./dom.js";
import { state, subscribe } from "./store.js";

const MIN = 2;
const MAX = 4;

/**
 * Lists to choose from. `names()` are the chosen ones, which may be the same model twice.
 * @param {{onChange: () => void}} options
 */
export function createPicks({ onChange }) {
  /** @type {string[]} */
  let chosen = [];
  let max = MAX;
  /** @type {any[]} */
  let models = [];
  const element = h("div", { class: "picks", role: "group", "aria-label": "Models to compare" });

  function render() {
    const add = h(
      "button",
      {
        class: "button",
        type: "button",
        hidden: chosen.length >= max,
        dataset: { testid: "compare-add" },
        on: { click: () => change([...chosen, nextOf(chosen)]) },
      },
      "Add a model",
    );
    fill(element, chosen.map(pick), add);
  }

  /** @param {string} name @param {number} index */
  function pick(name, index) {
    const select = h(
      "select",
      { "aria-label": `Model ${index + 1}`, dataset: { testid: `compare-model-${index}` } },
      models.map(({ id }) => h("option", { value: id, selected: id === name }, id)),
    );
    select.addEventListener("change", () => change(chosen.with(index, select.value)));
    const remove = h(
      "button",
      {
        class: "button quiet small",
        type: "button",
        "aria-label": `Remove model ${index + 1}`,
        on: { click: () => change(chosen.toSpliced(index, 1)) },
      },
      "×",
    );
    return h("div", { class: "pick" }, select, chosen.length > MIN && remove);
  }

  /** @param {string[]} names */
  function change(names) {
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.testid;
    chosen = names.slice(0, max);
    render();
    if (focused) element.querySelector(`[data-testid="${focused}"]`)?.focus();
    onChange();
  }

  subscribe(() => {
    if (state.models === models || !state.models.length) return;
    models = state.models;
    const known = chosen.filter((name) => models.some(({ id }) => id === name));
    while (known.length < MIN) known.push(known.length ? nextOf(known) : state.draft.model || models[0].id);
    change(known);
  });

  return {
    element,
    names: () => chosen,
    /** At most so many, and all of them different. @param {number} most */
    limitTo(most) {
      max = most;
      const different = [...new Set(chosen)].slice(0, most);
      while (different.length < MIN) different.push(nextOf(different));
      change(different);
    },
    /** As many as there may be, the same one twice where it is wanted. */
    lift() {
      max = MAX;
      change(chosen);
    },
  };
}

/** A model that is not chosen yet, where there is one. @param {string[]} chosen */
function nextOf(chosen) {
  return (state.models.find(({ id }) => !chosen.includes(id)) ?? state.models[0]).id;
}
