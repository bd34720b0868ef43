// @ts-check
// A text field for JSON that says where it is wrong; only what is valid is handed on.

import { h } from "./dom.js";

/**
 * @param {{onChange: (value: any) => void, rows?: number, type?: string, label?: string,
 *   testId?: string, placeholder?: string}} options
 *   onChange: gets undefined where the field is empty; type: "array" or "object", where it must be
 */
export function jsonEditor({ onChange, rows = 8, type, label = "JSON", testId, placeholder = "" }) {
  const text = h("textarea", {
    class: "mono",
    rows,
    placeholder,
    spellcheck: false,
    autocapitalize: "off",
    "aria-label": label,
    ...(testId ? { dataset: { testid: testId } } : {}),
  });
  const problem = h("p", { class: "problem", role: "status", hidden: true });
  const tell = (/** @type {string} */ told) => {
    problem.textContent = told;
    problem.hidden = told === "";
    text.setAttribute("aria-invalid", String(told !== ""));
  };
  text.addEventListener("input", () => {
    if (text.value.trim() === "") {
      tell("");
      return onChange(undefined);
    }
    const { value, fault } = parse(text.value, type);
    tell(fault);
    if (!fault) onChange(value);
  });
  const element = h("div", { class: "rows" }, text, problem);
  return Object.assign(element, {
    text,
    problem,
    /** @param {any} value undefined for none */
    show(value) {
      tell("");
      text.value = value === undefined ? "" : JSON.stringify(value, null, 2);
    },
    focusText: () => text.focus(),
  });
}

/** @param {string} text @param {string | undefined} type @returns {{value?: any, fault: string}} */
function parse(text, type) {
  const last = "What was valid before is still sent.";
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { fault: `Not valid JSON: ${/** @type {Error} */ (error).message}. ${last}` };
  }
  const isList = Array.isArray(value);
  if (type === "array" && !isList) return { fault: `A list is needed: [ … ]. ${last}` };
  if (type === "object" && (isList || typeof value !== "object" || value === null)) {
    return { fault: `An object is needed: { … }. ${last}` };
  }
  return { value, fault: "" };
}
