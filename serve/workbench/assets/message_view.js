// @ts-check
// How a turn of a conversation looks: text, images, calls of tools, figures and errors.

import { h, fill } from "./dom.js";
import { copyButton, renderMarkdown, showPlain } from "./markdown.js";
import { fullTextOf, imagesOf, textOf } from "./message_text.js";
import { count, renderDuration } from "./metrics.js";

const RENDER_EVERY_MS = 250;
/** Characters of an answer that are read out once it is complete. */
const ANNOUNCED = 600;
const ROLES = { user: "You", assistant: "Answer", system: "System", tool: "Tool's answer" };

/**
 * @typedef {import("./store.js").Message} Message
 * @typedef {object} Meta what is known of an answer besides its message
 * @property {string} [model] the name that was asked
 * @property {string | null} [target] who answered
 * @property {string | null} [finishReason]
 * @property {{prompt_tokens: number, completion_tokens: number} | null} [usage]
 * @property {number | null} [firstTokenMs]
 * @property {number} [totalMs]
 * @property {boolean} [aborted]
 */

/** Says something to those who listen to the page instead of looking at it. @param {string} text */
export function announce(text) {
  const live = document.getElementById("live");
  if (live) live.textContent = text;
}

/**
 * The frame of a turn: whose it is, room for what it says, and a foot.
 * @param {string} role @param {string} [name] instead of the role's
 */
export function messageFrame(role, name) {
  const label = name ?? /** @type {Record<string, string>} */ (ROLES)[role] ?? role;
  const body = h("div", { class: "message-body" });
  const foot = h("div", { class: "message-foot" });
  const element = h(
    "article",
    { class: "message", dataset: { testid: "message", role } },
    h("div", { class: "message-head" }, h("strong", {}, label)),
    body,
    foot,
  );
  return { element, body, foot };
}

/**
 * A finished turn.
 * @param {Message} message
 * @param {{meta?: Meta | null, actions?: HTMLElement[], name?: string}} [options]
 *   name: instead of the role's; actions: buttons below it
 */
export function renderMessage(message, { meta = null, actions = [], name } = {}) {
  const { element, body, foot } = messageFrame(message.role, name ?? meta?.model);
  if (message.role === "assistant") body.append(...answerParts(message));
  else {
    const images = imagesOf(message).map(image);
    const text = textOf(message);
    if (images.length > 0) body.append(h("div", { class: "message-images" }, images));
    if (text) body.append(h("div", { class: "text" }, text));
  }
  fillFoot(foot, message, { meta, actions });
  return element;
}

/**
 * Puts copying, `actions` and the figures of an answer below a turn.
 * @param {HTMLElement} foot @param {Message} message
 * @param {{meta?: Meta | null, actions?: HTMLElement[]}} options
 */
export function fillFoot(foot, message, { meta = null, actions = [] }) {
  const text = fullTextOf(message);
  fill(
    foot,
    text && copyButton(() => text),
    actions,
    meta && h("span", { class: "hint figure" }, describeMeta(meta)),
  );
}

/** What an answer consists of, its Markdown rendered once it comes into sight. @param {Message} message */
function answerParts(message) {
  const parts = [];
  const text = textOf(message);
  if (text) {
    const element = h("div", { class: "markdown" });
    showPlain(element, text);
    whenNear(element, () => renderMarkdown(element, text));
    parts.push(element);
  }
  parts.push(...(message.tool_calls ?? []).map(toolCall));
  if (parts.length === 0) parts.push(h("p", { class: "note" }, "The answer is empty."));
  return parts;
}

/** @param {any} call */
export function toolCall(call) {
  return h(
    "div",
    { class: "tool-call", dataset: { testid: "tool-call" } },
    h("div", { class: "code-head" }, h("span", {}, "Calls ", h("code", {}, call.function.name))),
    h("pre", { class: "code-block wrap" }, indented(call.function.arguments)),
  );
}

/** @param {any} call */
function nameOf(call) {
  return `It calls ${call.function.name}.`;
}

/** JSON text with line ends; other text as it is, such as arguments that are still coming. @param {string} text */
function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** @param {string} url */
function image(url) {
  // The page fetches nothing from elsewhere; an address is shown as what it is.
  if (!url.startsWith("data:image/")) return h("code", {}, url);
  return h("img", { src: url, alt: "Image sent with this turn", loading: "lazy" });
}

/** @param {Meta} meta @returns {string} */
export function describeMeta(meta) {
  const facts = [];
  if (meta.target && meta.target !== meta.model) facts.push(`by ${meta.target}`);
  if (meta.usage) {
    facts.push(`${count(meta.usage.prompt_tokens)} + ${count(meta.usage.completion_tokens)} tokens`);
  }
  if (meta.firstTokenMs != null) facts.push(`first after ${renderDuration(meta.firstTokenMs)}`);
  if (meta.totalMs) facts.push(`${renderDuration(meta.totalMs)} in all`);
  if (meta.aborted) facts.push("stopped");
  else if (meta.finishReason === "length") facts.push("cut at the longest length");
  else if (meta.finishReason === "content_filter") facts.push("held back by the host's filter");
  return facts.join(" · ");
}

/**
 * An answer that is on its way: Markdown, rendered at most four times a second and at its end.
 * @param {HTMLElement} container
 */
export function renderAnswer(container) {
  const element = h("div", { class: "markdown" });
  const waiting = h("div", { class: "awaiting" }, h("span", { class: "spinner" }), "Waiting for the first word");
  fill(container, waiting);
  let text = "";
  /** @type {any[]} */
  let calls = [];
  let isOver = false;
  let isRendering = false;
  /** @type {ReturnType<typeof setTimeout> | null} */
  let timer = null;

  const render = async () => {
    timer = null;
    const shown = text;
    isRendering = true;
    if (calls.length > 0) fill(container, text && element, calls.map(toolCall));
    if (text) await renderMarkdown(element, shown, { keep: false });
    isRendering = false;
    if (!isOver && text !== shown) plan();
  };
  const plan = () => {
    if (timer === null && !isRendering) timer = setTimeout(render, RENDER_EVERY_MS);
  };
  const end = () => {
    isOver = true;
    if (timer !== null) clearTimeout(timer);
  };
  return {
    /** A further piece of the text; `message` is all that has come. @param {string} piece @param {Message} [message] */
    append(piece, message) {
      if (isOver) return;
      calls = message?.tool_calls ?? [];
      if (piece && !text) {
        fill(container, element);
        showPlain(element, piece);
      }
      text += piece;
      plan();
    },
    /** Nothing further comes. */
    end,
    /** The whole answer; resolves once it is shown as Markdown. @param {Message} message */
    async finish(message) {
      end();
      const whole = textOf(message);
      // The element stays, so that what was there does not flash.
      const parts = whole ? [element] : [];
      calls = message.tool_calls ?? [];
      if (whole && (!text || element.classList.contains("plain"))) showPlain(element, whole);
      const rendering = whole ? renderMarkdown(element, whole) : null;
      const nothing = h("p", { class: "note" }, "The answer is empty.");
      fill(container, parts.length + calls.length > 0 ? [...parts, ...calls.map(toolCall)] : nothing);
      announce(`Answer complete. ${whole.slice(0, ANNOUNCED) || calls.map(nameOf).join(" ")}`);
      await rendering;
    },
    /** The answer's end where it failed: what came stays. @param {any} error @param {HTMLElement[]} [actions] */
    fail(error, actions = []) {
      end();
      if (text) renderMarkdown(element, text);
      fill(container, text ? element : null, errorBox(error, actions));
    },
  };
}

/**
 * What failed, and what one can do about it.
 * @param {any} error
 * @param {HTMLElement[]} [actions]
 */
export function errorBox(error, actions = []) {
  const key = error.status === 401 && h(
    "button",
    { type: "button", class: "button small", on: { click: () => document.getElementById("key")?.click() } },
    "Enter a key",
  );
  return h(
    "div",
    { class: "error-box", role: "alert", dataset: { testid: "error" } },
    h("strong", {}, sentence(error.message ?? String(error))),
    h("span", { class: "note" }, remedy(error)),
    (key || actions.length > 0) && h("div", { class: "bar" }, key, actions),
  );
}

/** @param {string} text */
function sentence(text) {
  const first = /^[a-z_]+(\[|:|\.|_)/.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

/** @param {{status?: number, param?: string | null, retryAfterS?: number | null}} error @returns {string} */
function remedy({ status, param, retryAfterS }) {
  const wait = retryAfterS ? ` in ${retryAfterS} s` : " in a moment";
  if (status === 0) return "Look at the terminal that runs the server, then try again.";
  if (status === 401) return "This server answers to those who hold one of its keys.";
  if (status === 404) return "Choose another model in the settings.";
  if (status === 413) return "Send less text, or fewer or smaller images.";
  if (status === 429) return `The server is at its limit. Try again${wait}.`;
  if (status === 503) return `The server is loading, stopping or overloaded. Try again${wait}.`;
  if (status === 400 && param?.startsWith("messages")) return "Change the conversation: edit a turn, or begin a new chat.";
  if (status === 400 && param) return `Change or reset “${param}” in the settings.`;
  if (status === 400) return "Change the request and send it again.";
  return "Try again; the server's log says more.";
}

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      pending.get(target)?.();
    }
  },
  { rootMargin: "600px 0px" },
);
/** @type {WeakMap<Element, () => void>} */
const pending = new WeakMap();

/** Calls `act` once the element is about to be seen. @param {Element} element @param {() => void} act */
function whenNear(element, act) {
  pending.set(element, act);
  near.observe(element);
}
