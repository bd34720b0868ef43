// @ts-check
// The one place where markup enters the page: what the server has rendered and sanitized.

import { postJson } from "./api.js";
import { h } from "./dom.js";

const KEPT = 400;

// Only what came from the server's sanitizer reaches this policy, so it has nothing left to do; the
// page's Content-Security-Policy lets no other policy be made.
const trustedTypes = /** @type {any} */ (globalThis).trustedTypes;
const policy = trustedTypes?.createPolicy("tunery", {
  createHTML: (/** @type {string} */ html) => html,
});

/** @type {Map<string, string>} rendered texts, the latest last */
const rendered = new Map();

/**
 * Puts a text into an element as Markdown; as plain text where the server cannot render it.
 * An element for which a later text has been asked for meanwhile stays as that one leaves it.
 * @param {HTMLElement} element
 * @param {string} text
 * @param {{keep?: boolean}} [options] keep: remember the result, for texts that will not grow
 */
export async function renderMarkdown(element, text, { keep = true } = {}) {
  latest.set(element, text);
  let html = rendered.get(text);
  if (html === undefined) {
    try {
      html = /** @type {string} */ ((await postJson("/workbench/api/markdown", { text })).html);
    } catch {
      if (latest.get(element) === text) showPlain(element, text);
      return;
    }
    if (keep) remember(text, html);
  }
  if (latest.get(element) !== text) return;
  element.classList.remove("plain");
  element.innerHTML = policy ? policy.createHTML(html) : html;
  for (const link of element.querySelectorAll("a[href]")) {
    link.setAttribute("target", "_blank");
    link.setAttribute("rel", "noopener noreferrer");
  }
  for (const block of element.querySelectorAll("pre")) frameCode(block);
}

/** @type {WeakMap<HTMLElement, string>} */
const latest = new WeakMap();

/** Puts a text into an element as it stands. @param {HTMLElement} element @param {string} text */
export function showPlain(element, text) {
  latest.set(element, text);
  element.classList.add("plain");
  element.textContent = text;
}

/** @param {string} text @param {string} html */
function remember(text, html) {
  rendered.set(text, html);
  if (rendered.size > KEPT) rendered.delete(/** @type {string} */ (rendered.keys().next().value));
}

/** Gives a block of code a head with its language and a button that copies it. @param {Element} block */
function frameCode(block) {
  const language = /language-([\w+#.-]+)/.exec(block.querySelector("code")?.className ?? "")?.[1];
  block.setAttribute("tabindex", "0");
  const frame = h("div", { class: "code" });
  block.replaceWith(frame);
  const head = h("div", { class: "code-head" }, h("span", {}, language ?? "code"));
  head.append(copyButton(() => block.textContent ?? ""));
  frame.append(head, block);
}

/**
 * A button that copies what `text` gives when it is pressed, and says so.
 * @param {() => string} text
 * @param {Record<string, any>} [props]
 */
export function copyButton(text, props = {}) {
  const button = h("button", { type: "button", class: "button quiet small", ...props }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text())) ? "Copied" : "Cannot copy";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

/** @param {string} text @returns {Promise<boolean>} */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Browsers keep the clipboard from pages that come over plain HTTP from another machine.
    const area = h("textarea", { class: "visually-hidden", value: text, "aria-hidden": "true" });
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return done;
  }
}
