// @ts-check
// The request builder that Chat, Compare and API share: model, system prompt, parameters, tools and
// the answer's form.

import { fill, h } from "./dom.js";
import { jsonEditor } from "./json_editor.js";
import { buildSchemaForm } from "./schema_form.js";
import { findModel, state, subscribe, updateDraft } from "./store.js";

const EXAMPLE_TOOLS = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather in a city at this time.",
      parameters: {
        type: "object",
        properties: { city: { type: "string" } },
        required: ["city"],
      },
    },
  },
];
const EXAMPLE_SCHEMA = {
  name: "answer",
  schema: {
    type: "object",
    properties: { answer: { type: "string" } },
    required: ["answer"],
    additionalProperties: false,
  },
};
const FORMATS = { text: "Text", json_object: "Any JSON object", json_schema: "JSON that fits a schema" };

/** @param {HTMLElement} container */
export function mount(container) {
  const model = h("select", { id: "model-select", dataset: { testid: "model-select" } });
  const about = h("p", { class: "hint", id: "model-hint" });
  model.setAttribute("aria-describedby", "model-hint");
  const dropped = h("p", { class: "notice", role: "status", hidden: true });
  const system = h("textarea", {
    id: "system-prompt",
    rows: 3,
    placeholder: "None",
    dataset: { testid: "system-prompt" },
    on: { input: () => updateDraft({ system: system.value }) },
  });
  const parameters = h("div", { class: "settings-form" });
  const tools = toolsEditor();
  const format = formatEditor();
  const reset = h("button", { type: "button", class: "button quiet small push" }, "Reset all");
  reset.addEventListener("click", () => updateDraft({ system: "", parameters: {} }));
  container.append(
    h("div", { class: "drawer-head" }, h("h2", {}, "Settings"), reset, closeButton()),
    h(
      "div",
      { class: "settings-form" },
      h("div", { class: "field" }, h("label", { htmlFor: "model-select" }, "Model"), model, about, dropped),
      h("div", { class: "field" }, h("label", { htmlFor: "system-prompt" }, "System prompt"), system),
      parameters,
      tools.element,
      format.element,
    ),
  );
  model.addEventListener("change", () => updateDraft({ model: model.value }));

  /** @type {any[] | null} */
  let shownModels = null;
  /** @type {string | null} */
  let shownModel = null;
  /** @type {ReturnType<typeof buildSchemaForm> | null} */
  let form = null;
  const show = () => {
    const { draft, models } = state;
    if (models !== shownModels) {
      shownModels = models;
      fill(model, models.map(({ id }) => h("option", { value: id }, id)));
      shownModel = null;
    }
    const current = findModel(draft.model);
    if (current && shownModel !== draft.model) {
      shownModel = draft.model;
      form = buildSchemaForm(parameters, current.json_request_schema, setParameter);
      about.textContent = describeModel(current);
      tools.element.hidden = !("tools" in current.json_request_schema.properties);
      format.element.hidden = !("response_format" in current.json_request_schema.properties);
      written = null;
      const left = leaveOut(draft.parameters, current);
      dropped.hidden = left.length === 0;
      dropped.textContent = `${current.id} does not take ${left.join(", ")}: left out.`;
      if (left.length > 0) return;
    }
    model.value = draft.model;
    if (system.value !== draft.system) system.value = draft.system;
    if (draft.parameters !== written) {
      written = draft.parameters;
      form?.show(draft.parameters);
      tools.show(draft.parameters.tools);
      format.show(draft.parameters.response_format);
    }
  };
  subscribe(show);
  show();
}

// The parameters as this form last wrote them: while it is typed in, it is not filled in anew.
/** @type {Record<string, any> | null} */
let written = null;

/** @param {string} name @param {any} value undefined takes it out */
function setParameter(name, value) {
  const { [name]: _, ...rest } = state.draft.parameters;
  written = value === undefined ? rest : { ...rest, [name]: value };
  updateDraft({ parameters: written });
}

/** Takes out the parameters that a model does not know; their names. @param {Record<string, any>} parameters @param {any} model */
function leaveOut(parameters, model) {
  const known = model.json_request_schema.properties;
  const names = Object.keys(parameters).filter((name) => !(name in known));
  if (names.length > 0) {
    const kept = Object.entries(parameters).filter(([name]) => name in known);
    updateDraft({ parameters: Object.fromEntries(kept) });
  }
  return names;
}

/** @param {any} model */
function describeModel(model) {
  const facts = [
    model.description,
    model.source_model && `Tuned from ${model.source_model}.`,
    model.max_context_length && `Context: ${model.max_context_length.toLocaleString("en-GB")} tokens.`,
    model.capabilities?.input?.includes("image") && "Takes images.",
  ];
  return facts.filter(Boolean).join(" ");
}

function closeButton() {
  return h(
    "button",
    { type: "button", class: "button quiet small only-narrow", dataset: { closes: "settings" } },
    "Close",
  );
}

function toolsEditor() {
  const editor = jsonEditor({
    type: "array",
    label: "Tools as JSON",
    testId: "tools-editor",
    placeholder: "[]",
    onChange: (value) => setParameter("tools", value?.length > 0 ? value : undefined),
  });
  const example = h("button", { type: "button", class: "button small" }, "Fill in an example");
  example.addEventListener("click", () => {
    editor.show(EXAMPLE_TOOLS);
    setParameter("tools", EXAMPLE_TOOLS);
  });
  const clear = h("button", { type: "button", class: "button quiet small" }, "Remove all");
  clear.addEventListener("click", () => {
    editor.show(undefined);
    setParameter("tools", undefined);
  });
  const summary = h("summary", {}, "Tools");
  const note = h("p", { class: "hint" }, "Functions that the answer may call, as a JSON list. You answer the calls in the chat.");
  const element = h(
    "details",
    {},
    summary,
    h("div", { class: "field" }, note, editor, h("div", { class: "bar" }, example, clear)),
  );
  return {
    element,
    show(/** @type {any} */ value) {
      editor.show(value);
      if (value) element.open = true;
    },
  };
}

function formatEditor() {
  const menu = h(
    "select",
    { id: "response-format", dataset: { testid: "response-format" } },
    h("option", { value: "" }, "not set"),
    Object.entries(FORMATS).map(([value, name]) => h("option", { value }, name)),
  );
  const editor = jsonEditor({
    type: "object",
    label: "Name and schema as JSON",
    testId: "response-schema",
    rows: 10,
    onChange: (value) => {
      if (value) setParameter("response_format", { type: "json_schema", json_schema: value });
    },
  });
  editor.hidden = true;
  menu.addEventListener("change", () => {
    editor.hidden = menu.value !== "json_schema";
    if (menu.value === "") return setParameter("response_format", undefined);
    if (menu.value !== "json_schema") return setParameter("response_format", { type: menu.value });
    editor.show(EXAMPLE_SCHEMA);
    setParameter("response_format", { type: "json_schema", json_schema: EXAMPLE_SCHEMA });
  });
  const element = h(
    "details",
    {},
    h("summary", {}, "Response format"),
    h("div", { class: "field" }, h("label", { htmlFor: "response-format" }, "The answer is"), menu, editor),
  );
  return {
    element,
    show(/** @type {any} */ value) {
      menu.value = value?.type ?? "";
      editor.hidden = value?.type !== "json_schema";
      if (!editor.hidden) editor.show(value.json_schema);
      if (value) element.open = true;
    },
  };
}
