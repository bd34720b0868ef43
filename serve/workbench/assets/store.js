// @ts-check
// What all views share: the models, and the request that is being built.

/**
 * @typedef {{role: string, content?: any, tool_calls?: any[], tool_call_id?: string}} Message
 * @typedef {object} Draft
 * @property {string} model
 * @property {string} system empty for no system turn
 * @property {Message[]} messages without the system turn
 * @property {Record<string, any>} parameters only those that were set, by their names in the schema
 * @typedef {object} State
 * @property {any[]} models the objects of `/v1/models`
 * @property {{asks_for_keys: boolean, keeps_votes: boolean, runs: string[], version: string} | null} about
 * @property {Draft} draft
 * @property {{messages: Message[]}} compare what Compare asks, the last user turn included
 * @property {string} tab
 */

/** @type {State} */
export const state = {
  models: [],
  about: null,
  draft: { model: "", system: "", messages: [], parameters: {} },
  compare: { messages: [] },
  tab: "chat",
};

/** @type {Set<(state: State) => void>} */
const listeners = new Set();

/**
 * Has `listener` called after each change; returns what ends that.
 * @param {(state: State) => void} listener
 */
export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** @param {Partial<State>} change */
export function update(change) {
  Object.assign(state, change);
  for (const listener of [...listeners]) listener(state);
}

/** @param {Partial<Draft>} change */
export function updateDraft(change) {
  update({ draft: { ...state.draft, ...change } });
}

/** The object of a model by its name. @param {string} name */
export function findModel(name) {
  return state.models.find((model) => model.id === name);
}

/**
 * The body of a completion as the form stands: exactly what is sent, and what the API tab shows.
 * @param {{model?: string, messages?: Message[], stream?: boolean}} [options]
 */
export function buildBody({
  model = state.draft.model,
  messages = state.draft.messages,
  stream = false,
} = {}) {
  const { system, parameters } = state.draft;
  const first = system.trim() ? [{ role: "system", content: system }] : [];
  return {
    model,
    messages: [...first, ...messages],
    ...parameters,
    ...(stream ? { stream: true, stream_options: { include_usage: true } } : {}),
  };
}
