// @ts-check
// Chat messages taken apart: text, images, and what each view hands on to another.

/** @typedef {import("./store.js").Message} Message */

/** The text of a turn, whatever its content's form. @param {Message | undefined} message @returns {string} */
export function textOf(message) {
  if (typeof message?.content === "string") return message.content;
  const parts = (message?.content ?? []).filter((/** @type {any} */ part) => part.type === "text");
  return parts.map((/** @type {any} */ part) => part.text).join("\n");
}

/** The addresses of a turn's images. @param {Message | undefined} message @returns {string[]} */
export function imagesOf(message) {
  if (!Array.isArray(message?.content)) return [];
  return message.content
    .filter((part) => part.type === "image_url")
    .map((part) => (typeof part.image_url === "string" ? part.image_url : part.image_url.url));
}

/** All that an answer says, its calls of tools as `name(arguments)`. @param {Message} message */
export function fullTextOf(message) {
  const calls = (message.tool_calls ?? []).map(
    ({ function: called }) => `${called.name}(${called.arguments})`,
  );
  return [textOf(message), ...calls].filter(Boolean).join("\n");
}

/**
 * The system turn's text and the messages after it, as the draft holds them.
 * @param {Message[]} messages
 */
export function splitSystem(messages) {
  const [first, ...rest] = messages;
  if (first?.role !== "system") return { system: "", messages };
  return { system: textOf(first), messages: rest };
}

/** The messages up to what asks for an answer. @param {Message[]} messages */
export function withoutLastAnswer(messages) {
  const last = messages.findLastIndex(({ role }) => role !== "assistant");
  return messages.slice(0, last + 1);
}
