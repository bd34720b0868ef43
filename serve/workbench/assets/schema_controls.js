// @ts-check
// The controls of a form made from a JSON Schema: which one a property gets follows from its type.

import { fill, h } from "./dom.js";
import { jsonEditor } from "./json_editor.js";

export const LONGEST_SLIDER = 1_000_000;

/**
 * @typedef {any} Schema
 * @typedef {(value: any, problem?: string) => void} OnChange value: undefined for none
 * @typedef {object} Control
 * @property {HTMLElement[]} elements
 * @property {HTMLElement} labelled the one of them that takes the label
 * @property {(value: any) => void} show undefined for none
 */

/**
 * What edits a property's value. property: as `resolve` gives it
 * @param {Schema} property @param {OnChange} onChange @returns {Control}
 */
export function buildControl(property, onChange) {
  const options = property.options ?? [property];
  const list = options.find((/** @type {Schema} */ option) => option.type === "array" && option.items?.type === "string");
  if (list) return textList(list, onChange);
  const choice = options.find((/** @type {Schema} */ option) => option.enum);
  if (choice) return select({ ...property, ...choice }, options.length > 1, onChange);
  if (property.options) return json(property, onChange);
  if (property.type === "boolean") return checkbox(property, onChange);
  if (property.type === "number" || property.type === "integer") return number(property, onChange);
  if (property.type === "string") return line(property, onChange);
  return json(property, onChange);
}

/** @param {Schema} property @param {OnChange} onChange @returns {Control} */
function number(property, onChange) {
  const { minimum, maximum, type } = property;
  const fallback = property.default;
  const isShort = minimum !== undefined && maximum - minimum <= LONGEST_SLIDER;
  const step = type === "integer" ? 1 : maximum - minimum <= 10 ? 0.05 : "any";
  const box = h("input", {
    type: "number",
    step: type === "integer" ? 1 : "any",
    placeholder: fallback ?? "not set",
    inputMode: type === "integer" ? "numeric" : "decimal",
  });
  const slider = h("input", { type: "range", "aria-label": "Slider" });
  if (isShort) {
    Object.assign(box, { min: minimum, max: maximum });
    // In this order: a slider's value is cut to the limits that it has at that time.
    for (const [name, value] of Object.entries({ min: minimum, max: maximum, step })) {
      slider.setAttribute(name, String(value));
    }
  }
  const rest = fallback ?? maximum;
  box.addEventListener("input", () => {
    if (box.value === "" && !box.validity.badInput) {
      slider.value = rest;
      return onChange(undefined);
    }
    const value = box.validity.badInput ? NaN : Number(box.value);
    slider.value = String(value);
    onChange(Number.isNaN(value) ? undefined : value, numberProblem(value, property));
  });
  slider.addEventListener("input", () => {
    box.value = slider.value;
    onChange(Number(slider.value));
  });
  return {
    elements: isShort ? [slider, box] : [box],
    labelled: box,
    show(value) {
      box.value = value ?? "";
      slider.value = value ?? rest;
    },
  };
}

/** @param {number} value @param {Schema} property @returns {string} */
function numberProblem(value, { minimum, maximum, type }) {
  if (Number.isNaN(value)) return "Not a number: it is not sent.";
  if (type === "integer" && !Number.isInteger(value)) return "A whole number is needed.";
  if (type === "integer" && !Number.isSafeInteger(value)) return "Browsers cannot send so large a number.";
  if (value < minimum) return `At least ${minimum}.`;
  if (value > maximum) return `At most ${maximum}.`;
  return "";
}

/** @param {Schema} property @param {OnChange} onChange @returns {Control} */
function checkbox(property, onChange) {
  const box = h("input", { type: "checkbox", on: { change: () => onChange(box.checked) } });
  return { elements: [box], labelled: box, show: (value) => (box.checked = value ?? property.default ?? false) };
}

/** @param {Schema} property @param {OnChange} onChange @returns {Control} */
function line(property, onChange) {
  const input = h("input", {
    type: "text",
    placeholder: property.default || "not set",
    maxLength: property.maxLength ?? -1,
    on: { input: () => onChange(input.value || undefined) },
  });
  return { elements: [input], labelled: input, show: (value) => (input.value = value ?? "") };
}

/**
 * A choice; where an object may stand there too, a last entry opens an editor for it.
 * @param {Schema} property @param {boolean} takesObject @param {OnChange} onChange @returns {Control}
 */
function select(property, takesObject, onChange) {
  const values = property.enum;
  const unset = property.default !== undefined ? `not set (${property.default})` : "not set";
  const menu = h(
    "select",
    {},
    h("option", { value: "" }, unset),
    values.map((/** @type {any} */ value, /** @type {number} */ index) => h("option", { value: index }, String(value))),
    takesObject && h("option", { value: "object" }, "as JSON"),
  );
  const editor = jsonEditor({ onChange, rows: 4 });
  editor.hidden = true;
  menu.addEventListener("change", () => {
    editor.hidden = menu.value !== "object";
    if (menu.value === "object") return editor.focusText();
    onChange(menu.value === "" ? undefined : values[Number(menu.value)]);
  });
  return {
    elements: takesObject ? [menu, editor] : [menu],
    labelled: menu,
    show(value) {
      const index = values.indexOf(value);
      menu.value = value === undefined ? "" : index < 0 ? "object" : String(index);
      editor.hidden = menu.value !== "object";
      if (menu.value === "object") editor.show(value);
    },
  };
}

/** @param {Schema} property @param {OnChange} onChange @returns {Control} */
function textList(property, onChange) {
  const rows = h("div", { class: "rows" });
  const add = h("button", { type: "button", class: "button small" }, "Add");
  const root = h("div", { class: "rows", role: "group", tabIndex: -1 }, rows, h("div", {}, add));
  const send = () => {
    const values = [...rows.querySelectorAll("input")].map(({ value }) => value).filter(Boolean);
    onChange(values.length > 0 ? values : undefined);
    add.disabled = rows.childElementCount >= (property.maxItems ?? Infinity);
  };
  const row = (/** @type {string} */ value) => {
    const input = h("input", { type: "text", value, "aria-label": "Text", on: { input: send } });
    const remove = h("button", { type: "button", class: "button quiet small" }, "Remove");
    const element = h("div", { class: "row" }, input, remove);
    remove.addEventListener("click", () => {
      element.remove();
      send();
      add.focus();
    });
    return element;
  };
  add.addEventListener("click", () => {
    rows.append(row(""));
    rows.querySelector(".row:last-child input")?.dispatchEvent(new Event("input"));
    /** @type {HTMLElement} */ (rows.querySelector(".row:last-child input")).focus();
  });
  return {
    elements: [root],
    labelled: root,
    show: (value) => fill(rows, [value ?? []].flat().map(row)),
  };
}

/** @param {Schema} property @param {OnChange} onChange @returns {Control} */
function json(property, onChange) {
  const editor = jsonEditor({ onChange, rows: 3, type: property.type });
  return { elements: [editor], labelled: editor.text, show: editor.show };
}
