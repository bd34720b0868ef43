// @ts-check
// What an answer took, in words. What is not known is a dash, never a guess.

/** @typedef {import("./api.js").Answer} Answer */

export const UNKNOWN = "–";
const MIN_SPEED_S = 0.02;

/** A span of time, to three digits. @param {number | null} milliseconds */
export function renderDuration(milliseconds) {
  if (milliseconds === null) return UNKNOWN;
  if (milliseconds < 999.5) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 2 : 1)} s`;
}

/**
 * Tokens a second once the first has come, so that reading the prompt does not count.
 * @param {Answer} answer
 */
export function renderSpeed({ usage, firstTokenMs, totalMs }) {
  if (!usage || firstTokenMs === null || usage.completion_tokens < 2) return UNKNOWN;
  const seconds = (totalMs - firstTokenMs) / 1000;
  // An answer that comes in one piece, as through a proxy that gathers it, does not tell its speed.
  if (seconds < MIN_SPEED_S) return UNKNOWN;
  const speed = (usage.completion_tokens - 1) / seconds;
  return `${speed.toFixed(speed < 100 ? 1 : 0)} tokens/s`;
}

/** @param {Answer["usage"]} usage */
export function renderTokens(usage) {
  if (!usage) return UNKNOWN;
  return `${count(usage.prompt_tokens)} in, ${count(usage.completion_tokens)} out`;
}

/**
 * What the tokens cost where the model's object names a price for each.
 * @param {Answer["usage"]} usage
 * @param {any} pricing
 */
export function renderCost(usage, pricing) {
  if (!usage || pricing?.method !== "token") return UNKNOWN;
  const { input_cost_per_token: input, output_cost_per_token: output, currency } = pricing;
  if (typeof input !== "number" || typeof output !== "number") return UNKNOWN;
  return renderMoney(usage.prompt_tokens * input + usage.completion_tokens * output, currency);
}

/** @param {number} amount @param {string | null | undefined} currency an ISO 4217 code */
function renderMoney(amount, currency) {
  const digits = { maximumSignificantDigits: 3 };
  if (/^[A-Za-z]{3}$/.test(currency ?? "")) {
    const style = { style: /** @type {const} */ ("currency"), currency: currency ?? undefined };
    return new Intl.NumberFormat("en-GB", { ...style, ...digits }).format(amount);
  }
  return [new Intl.NumberFormat("en-GB", digits).format(amount), currency].filter(Boolean).join(" ");
}

/** Why the answer ended. @param {Answer} answer */
export function renderFinish({ finishReason, aborted }) {
  if (aborted) return "stopped by you";
  return finishReason ?? UNKNOWN;
}

/** A share or a score, without zeros that say nothing. @param {number | null} value */
export function renderScore(value) {
  return value === null ? UNKNOWN : String(Number(value.toFixed(3)));
}

/** A difference of shares in points, with its sign. @param {number} value */
export function renderDifference(value) {
  const digits = Math.abs(100 * value).toFixed(1);
  if (Number(digits) === 0) return digits;
  return `${value < 0 ? "−" : "+"}${digits}`;
}

/** @param {number} value */
export function count(value) {
  return value.toLocaleString("en-GB");
}

/** "1 vote", "2 votes". @param {number} value @param {string} thing @param {string} [things] */
export function counted(value, thing, things = `${thing}s`) {
  return `${count(value)} ${value === 1 ? thing : things}`;
}
