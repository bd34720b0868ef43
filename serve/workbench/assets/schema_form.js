// @ts-check
// A form made from a model's own JSON Schema: its fields, ranges and defaults stand nowhere else.

import { fill, h } from "./dom.js";
import { buildControl, LONGEST_SLIDER } from "./schema_controls.js";

/** Fields that have editors of their own. */
const EDITED_ELSEWHERE = new Set([
  "model",
  "messages",
  "stream",
  "stream_options",
  "tools",
  "response_format",
]);

/** @typedef {import("./schema_controls.js").Schema} Schema */

/**
 * Builds the form into `container`.
 * @param {HTMLElement} container
 * @param {Schema} schema
 * @param {(name: string, value: any) => void} onChange value: undefined where it is not to be sent
 * @returns {{show: (values: Record<string, any>) => void}}
 */
export function buildSchemaForm(container, schema, onChange) {
  const names = Object.keys(schema.properties)
    .filter((name) => !EDITED_ELSEWHERE.has(name))
    .sort((a, b) => orderOf(schema, a) - orderOf(schema, b));
  const fields = names.map((name) => {
    const property = resolve(schema.properties[name], schema);
    return { name, property, ...buildField(name, property, (value) => onChange(name, value)) };
  });
  const basic = new Set(schema.basic ?? []);
  const first = fields.filter(({ name }) => basic.has(name));
  const only = fields.filter(({ name, property }) => !basic.has(name) && hasOneValue(property));
  const more = fields.filter(({ name, property }) => !basic.has(name) && !hasOneValue(property));
  const rest = group("Of one value only", params(only));
  fill(container, params(first), group("More", params(more), rest));
  return {
    show(values) {
      for (const field of fields) field.show(values[field.name]);
    },
  };
}

/** @param {Schema} schema @param {string} name */
function orderOf(schema, name) {
  return schema.properties[name]["x-order"] ?? Number.MAX_SAFE_INTEGER;
}

/** @param {{element: HTMLElement}[]} fields */
function params(fields) {
  return h("div", { class: "params" }, fields.map(({ element }) => element));
}

/** @param {string} title @param {...(HTMLElement | null)} parts */
function group(title, ...parts) {
  const held = parts.filter((part) => part?.hasChildNodes());
  return held.length > 0 ? h("details", {}, h("summary", {}, title), held) : null;
}

/**
 * A property without references and without null, which stands for an absent field. Where there
 * are alternatives, `options` holds them, flat.
 * @param {Schema} property @param {Schema} schema @returns {Schema}
 */
function resolve(property, schema) {
  const target = property.$ref ? refer(property.$ref, schema) : {};
  const { $ref, anyOf, oneOf, ...rest } = { ...target, ...property };
  const types = [rest.type ?? []].flat().filter((type) => type !== "null");
  const resolved = { ...rest, type: types.length === 1 ? types[0] : undefined };
  if (resolved.enum) resolved.enum = resolved.enum.filter((/** @type {any} */ value) => value !== null);
  const options = [...(anyOf ?? []), ...(oneOf ?? [])]
    .map((option) => resolve(option, schema))
    .flatMap((option) => option.options ?? [option])
    .filter((option) => option.type !== undefined || option.enum);
  if (options.length === 1) return { ...options[0], ...withoutUndefined(resolved) };
  return options.length > 1 ? { ...resolved, options } : resolved;
}

/** @param {string} ref such as `#/$defs/Name` @param {Schema} schema */
function refer(ref, schema) {
  return ref.slice(2).split("/").reduce((part, name) => part?.[name], schema) ?? {};
}

/** @param {Record<string, any>} object */
function withoutUndefined(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}

/** @param {Schema} property */
function hasOneValue(property) {
  if (property.enum) return property.enum.length === 1;
  if (property.type === "array") return property.items?.const !== undefined;
  if (property.type === "object") {
    const fields = Object.values(property.properties ?? {});
    return fields.every((/** @type {any} */ field) => field.enum?.length <= 2 || field.const !== undefined);
  }
  return property.const !== undefined;
}

/** @param {string} name @param {Schema} property @param {(value: any) => void} onChange */
function buildField(name, property, onChange) {
  const id = `param-${name}`;
  const problem = h("p", { class: "problem", id: `${id}-problem`, hidden: true });
  const reset = h(
    "button",
    { type: "button", class: "button quiet small reset", "aria-label": `Reset ${name}` },
    "Reset",
  );
  const control = buildControl(property, (value, told = "") => {
    mark(value !== undefined, told);
    onChange(value);
  });
  const { labelled, elements } = control;
  labelled.id = id;
  labelled.dataset.testid = id;
  labelled.setAttribute("aria-describedby", `${id}-hint ${id}-problem`);
  for (const other of elements) {
    if (other !== labelled && other.matches("input")) other.setAttribute("aria-label", `${name}, slider`);
  }
  const isGroup = labelled.getAttribute("role") === "group";
  if (isGroup) labelled.setAttribute("aria-labelledby", `${id}-label`);
  const label = isGroup
    ? h("span", { class: "label", id: `${id}-label` }, name)
    : h("label", { class: "label", htmlFor: id }, name);
  const element = h(
    "div",
    { class: "field param" },
    h("div", { class: "field-head" }, label, reset),
    h("div", { class: "param-control" }, elements),
    h("p", { class: "hint", id: `${id}-hint` }, describe(property)),
    problem,
  );
  const mark = (/** @type {boolean} */ isSet, told = "") => {
    element.classList.toggle("is-set", isSet || told !== "");
    problem.hidden = told === "";
    problem.textContent = told;
    if (!isGroup) labelled.setAttribute("aria-invalid", String(told !== ""));
  };
  const show = (/** @type {any} */ value) => {
    mark(value !== undefined);
    control.show(value);
  };
  reset.addEventListener("click", () => {
    show(undefined);
    onChange(undefined);
    labelled.focus();
  });
  show(undefined);
  return { element, show };
}

/** What a property is for, and its range. @param {Schema} property @returns {(string | HTMLElement)[]} */
function describe({ description = "", minimum, maximum }) {
  const words = description
    .split("`")
    .map((/** @type {string} */ part, /** @type {number} */ index) => (index % 2 ? h("code", {}, part) : part));
  const isBounded = minimum !== undefined && Math.abs(maximum) <= LONGEST_SLIDER;
  return isBounded ? [...words, ` ${minimum} to ${maximum}.`.replaceAll("-", "−")] : words;
}
