// @ts-check
// One model's answer beside those of others, with what it took.

import { streamChat } from "./api.js";
import { h } from "./dom.js";
import { fullTextOf } from "./message_text.js";
import { renderAnswer } from "./message_view.js";
import { renderCost, renderDuration, renderFinish, renderSpeed, renderTokens, UNKNOWN } from "./metrics.js";
import { findModel } from "./store.js";

/** @typedef {import("./api.js").Answer} Answer */

const METRICS = /** @type {const} */ ([
  ["metric-first-token", "First token"],
  ["metric-speed", "Speed"],
  ["metric-tokens", "Tokens"],
  ["metric-cost", "Cost"],
]);

/** An answer under way. Nothing of a hidden one tells who gives it until `reveal`. */
export class Column {
  /**
   * @param {string} model
   * @param {{label: string, isHidden?: boolean}} options label: its heading
   */
  constructor(model, { label, isHidden = false }) {
    this.model = model;
    this.label = label;
    /** @type {Answer | null} what came, whole or not; null until it has ended */
    this.answer = null;
    /** @type {Error | null} */
    this.error = null;
    this.isHidden = isHidden;
    this.stopper = new AbortController();
    this.title = h("h3", {}, label);
    this.head = h("div", { class: "column-head" }, this.title);
    this.body = h("div", { class: "column-body" });
    /** @type {Map<string, HTMLElement>} */
    this.figures = new Map();
    this.element = h(
      "section",
      { class: "column", "aria-label": label, dataset: { testid: "compare-column" } },
      this.head,
      this.body,
    );
    if (!isHidden) this.addFigures();
  }

  /** All that it said, or null where it said nothing. */
  get text() {
    return this.answer && !this.error ? fullTextOf(this.answer.message) || null : null;
  }

  /** Whether it answered, and to its end. */
  get isWhole() {
    return this.answer !== null && !this.error && !this.answer.aborted;
  }

  stop() {
    this.stopper.abort();
  }

  /** Asks the model and returns once it has ended, however it did. @param {any} body streaming */
  async run(body) {
    const view = this.isHidden ? this.openHidden() : this.openShown();
    try {
      this.answer = await streamChat(body, { signal: this.stopper.signal, onDelta: view.append });
      view.finish(this.answer.message);
    } catch (error) {
      this.error = /** @type {Error} */ (error);
      this.answer = /** @type {any} */ (error).answer ?? null;
      view.fail(this.error);
    }
    if (!this.isHidden) this.showFigures();
  }

  /** The answer appears as it comes. */
  openShown() {
    const view = renderAnswer(this.body);
    const started = performance.now();
    const button = h("button", { class: "button small push", type: "button" }, "Stop");
    button.setAttribute("aria-label", `Stop ${this.label}`);
    button.addEventListener("click", () => this.stop());
    this.head.append(button);
    const firstToken = /** @type {HTMLElement} */ (this.figures.get("metric-first-token"));
    return {
      append: (/** @type {string} */ text) => {
        if (firstToken.textContent === UNKNOWN) {
          firstToken.textContent = renderDuration(performance.now() - started);
        }
        view.append(text);
      },
      finish: (/** @type {Answer["message"]} */ message) => {
        button.remove();
        view.finish(message);
      },
      fail: (/** @type {Error} */ error) => {
        button.remove();
        view.fail(error);
      },
    };
  }

  /** The answer waits for `showAnswer`: how fast it comes would tell who gives it. */
  openHidden() {
    this.body.replaceChildren(
      h("p", { class: "awaiting" }, h("span", { class: "spinner" }), "Answering"),
    );
    const wait = () => {};
    return { append: wait, finish: wait, fail: wait };
  }

  /** What a hidden column was answered; its error may name it, and shows with the name. */
  showAnswer() {
    const view = renderAnswer(this.body);
    if (!this.error) return this.answer && view.finish(this.answer.message);
    view.append(this.answer?.message.content ?? "");
    view.fail(this.error);
  }

  /** Says whose answer it was, and what it took. */
  reveal() {
    this.isHidden = false;
    this.title.textContent = `${this.label}: ${this.model}`;
    this.element.setAttribute("aria-label", this.title.textContent);
    this.addFigures();
    this.showFigures();
  }

  addFigures() {
    const rows = METRICS.map(([testid, name]) => {
      const figure = h("dd", { dataset: { testid } }, UNKNOWN);
      this.figures.set(testid, figure);
      return h("div", { class: "metric" }, h("dt", {}, name), figure);
    });
    this.element.append(h("div", { class: "column-foot" }, h("dl", { class: "metrics" }, rows)));
  }

  showFigures() {
    const { answer } = this;
    if (!answer) return;
    const texts = [
      renderDuration(answer.firstTokenMs),
      renderSpeed(answer),
      renderTokens(answer.usage),
      renderCost(answer.usage, findModel(this.model)?.pricing),
    ];
    [...this.figures.values()].forEach((figure, index) => (figure.textContent = texts[index]));
    const ended = this.error ? "broke off" : renderFinish(answer);
    const finish = h("span", { class: "badge", dataset: { testid: "metric-finish" } }, ended);
    finish.title = "Why the answer ended";
    const isOther = answer.target && answer.target !== this.model;
    const target = isOther && h("span", { class: "badge", title: "Who answered" }, answer.target);
    this.head.append(h("span", { class: "badges push" }, target || "", finish));
  }
}
