// @ts-check
// In which words two answers differ, as the server finds them.

import { postJson } from "./api.js";
import { fill, h } from "./dom.js";
import { errorBox } from "./message_view.js";

/** @typedef {{text: string, marked: boolean}} Piece */
/** @typedef {{label: string, text: string}} Side */

/** A button, and what it opens: two of the answers with their differences marked. */
export class WordDiff {
  constructor() {
    /** @type {Side[]} */
    this.sides = [];
    this.isOpen = false;
    this.numAsked = 0;
    this.toggle = h("button", {
      class: "button",
      type: "button",
      "aria-pressed": "false",
      dataset: { testid: "diff-toggle" },
      on: { click: () => this.setOpen(!this.isOpen) },
    }, "Word differences");
    this.left = choice("First answer", () => this.render());
    this.right = choice("Second answer", () => this.render());
    this.choices = h("div", { class: "bar" }, this.left.element, this.right.element);
    this.result = h("div", { class: "diff-result slot", dataset: { testid: "diff" } });
    this.element = h(
      "section",
      { class: "card", "aria-label": "Word differences", hidden: true },
      h(
        "div",
        { class: "card-head" },
        h("h3", {}, "Word differences"),
        h("span", { class: "note" }, "Marked: the other answer lacks it."),
      ),
      this.choices,
      this.result,
    );
    this.setSides([]);
  }

  /** The answers there are; fewer than two have no differences. @param {Side[]} sides */
  setSides(sides) {
    this.sides = sides;
    this.numAsked += 1;
    fill(this.result);
    this.left.setNames(sides.map(({ label }) => label), 0);
    this.right.setNames(sides.map(({ label }) => label), 1);
    this.choices.hidden = sides.length < 3;
    this.toggle.disabled = sides.length < 2;
    this.setOpen(this.isOpen);
  }

  /** Once open, it opens again with the next answers. @param {boolean} isOpen */
  setOpen(isOpen) {
    this.isOpen = isOpen;
    this.element.hidden = !isOpen || this.sides.length < 2;
    this.toggle.setAttribute("aria-pressed", String(isOpen));
    if (!this.element.hidden) this.render();
  }

  async render() {
    const a = this.sides[this.left.index()];
    const b = this.sides[this.right.index()];
    const asked = (this.numAsked += 1);
    try {
      const pieces = await postJson("/workbench/api/diff", { a: a.text, b: b.text });
      if (asked === this.numAsked) fill(this.result, rendered(a, b, pieces));
    } catch (error) {
      if (asked === this.numAsked) fill(this.result, errorBox(error));
    }
  }
}

/** @param {Side} a @param {Side} b @param {{a: Piece[], b: Piece[]}} pieces */
function rendered(a, b, pieces) {
  if (words(a) === words(b)) return h("p", { class: "notice" }, "Both say the same, word for word.");
  const isMarked = [...pieces.a, ...pieces.b].some(({ marked }) => marked);
  const unmarked = "No words are marked: the answers are very long, or have hardly a word in common.";
  return [
    !isMarked && h("p", { class: "notice" }, unmarked),
    h("div", { class: "columns" }, half(a, pieces.a, "only-a"), half(b, pieces.b, "only-b")),
  ];
}

/** White space does not count as a difference. @param {Side} side */
function words({ text }) {
  return text.split(/\s+/).filter(Boolean).join(" ");
}

/** @param {Side} side @param {Piece[]} pieces @param {string} kind */
function half({ label }, pieces, kind) {
  const shown = pieces.map(({ text, marked }) => (marked ? h("mark", { class: kind }, text) : text));
  return h("div", { class: "diff-side" }, h("h4", {}, label), h("div", { class: "diff text" }, shown));
}

/** @param {string} label @param {() => void} onChange */
function choice(label, onChange) {
  const select = h("select", { "aria-label": label, on: { change: onChange } });
  return {
    element: h("div", { class: "field" }, select),
    index: () => select.selectedIndex,
    /** @param {string[]} names @param {number} chosen */
    setNames(names, chosen) {
      fill(select, names.map((name) => h("option", {}, name)));
      select.selectedIndex = Math.min(chosen, names.length - 1);
    },
  };
}
