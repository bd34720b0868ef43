// @ts-check
// One conversation: asked, streamed, stopped, edited, and kept in this browser's history.

import { streamChat } from "./api.js";
import { buildFrame, welcome } from "./chat_frame.js";
import { createComposer } from "./composer.js";
import { fill, h } from "./dom.js";
import { loadChat, mountHistory, saveChat, titleFrom } from "./history.js";
import { textOf } from "./message_text.js";
import { fillFoot, messageFrame, renderAnswer, renderMessage } from "./message_view.js";
import { buildBody, findModel, state, subscribe, updateDraft } from "./store.js";
import { createThread } from "./thread.js";
import { toolAnswers } from "./tool_answers.js";

const OPEN_CHAT = "tunery-chat";

/** @typedef {import("./store.js").Message} Message @typedef {import("./history.js").Chat["turns"][number]} Turn */

/** @param {HTMLElement} container */
export function mount(container) {
  new ChatView(container).start();
}

class ChatView {
  /** @type {Turn[]} */
  #turns = [];
  #id = "";
  #title = "";
  /** @type {AbortController | null} */
  #running = null;
  /** The draft's messages as this view last wrote them. @type {Message[] | null} */
  #written = null;
  #shownModel = "";
  #thread = createThread();
  #composer = createComposer({
    label: "Your message",
    placeholder: "Write a message",
    onSend: (content) => this.#send({ role: "user", content }),
    onStop: () => this.#running?.abort(),
    takesImages,
  });

  /** @param {HTMLElement} container */
  constructor(container) {
    this.history = mountHistory({
      onOpen: (id) => this.#open(id),
      onRename: (id, title) => {
        if (id === this.#id) this.#setTitle(title);
      },
      onRemove: (id) => {
        if (id === null || id === this.#id) this.#begin([]);
      },
    });
    this.frame = buildFrame({
      history: this.history.element,
      thread: this.#thread.element,
      composer: this.#composer,
      onNew: () => {
        this.#begin([]);
        this.#composer.focusText();
      },
    });
    container.append(this.frame.element);
  }

  /** Shows what the draft holds, or the chat that was open before the page was loaded anew. */
  start() {
    const last = sessionStorage.getItem(OPEN_CHAT);
    const isFree = state.draft.messages.length === 0;
    if (isFree) this.#begin([]);
    else this.#adopt(state.draft.messages);
    this.#composer.addEventListener("input", () => this.#writeDraft());
    subscribe(() => this.#follow());
    const told = "This browser keeps no history here, as in a private window.";
    this.history.refresh().catch(() => this.frame.setProblem(told));
    if (isFree && last) this.#open(last, { isKnown: true }).catch(() => {});
  }

  #follow() {
    const { messages, model } = state.draft;
    if (messages !== this.#written) return this.#adopt(messages);
    if (model === this.#shownModel) return;
    this.#shownModel = model;
    this.#composer.refresh();
    if (this.#turns.length === 0) this.#showEnd();
  }

  /** Takes over a conversation that another view has put into the draft. @param {Message[]} messages */
  #adopt(messages) {
    const last = messages.at(-1);
    const isQuestion = last?.role === "user";
    this.#written = messages;
    this.#composer.setContent(isQuestion ? last.content : null);
    const earlier = isQuestion ? messages.slice(0, -1) : messages;
    this.#begin(earlier.map((message) => ({ message, meta: null })));
  }

  /** Shows another conversation. @param {Turn[]} turns @param {{id?: string, title?: string}} [known] */
  #begin(turns, { id = newId(), title = "" } = {}) {
    this.#running?.abort();
    this.#running = null;
    this.#composer.setBusy(false);
    this.#turns = turns;
    this.#setId(id);
    this.#setTitle(title);
    this.#thread.show(turns.map((turn, index) => this.#elementOf(turn, index)));
    this.#showEnd();
    this.#writeDraft();
  }

  /**
   * Opens a chat of the history. isKnown: only where nothing has been begun meanwhile
   * @param {string} id @param {{isKnown?: boolean}} [options]
   */
  async #open(id, { isKnown = false } = {}) {
    const chat = await loadChat(id);
    const isBegun = this.#turns.length > 0 || this.#composer.getContent() !== null;
    if (!chat || (isKnown && isBegun)) return;
    const model = findModel(chat.model) ? chat.model : state.draft.model;
    updateDraft({ model, system: chat.system, parameters: chat.parameters });
    if (!isKnown) this.#composer.setContent(null);
    this.#begin(chat.turns, chat);
    this.frame.closeHistory();
    this.#composer.focusText();
  }

  /** The draft: what was said, and what stands in the composer. */
  #writeDraft() {
    const content = this.#composer.getContent();
    const pending = content === null ? [] : [{ role: "user", content }];
    this.#written = [...this.#messages(), ...pending];
    updateDraft({ messages: this.#written });
  }

  #messages() {
    return this.#turns.map(({ message }) => message);
  }

  /** @param {string} id */
  #setId(id) {
    this.#id = id;
    sessionStorage.setItem(OPEN_CHAT, id);
    this.history.show(id);
  }

  /** @param {string} title */
  #setTitle(title) {
    this.#title = title;
    this.frame.setTitle(title);
  }

  async #save() {
    const turns = this.#turns;
    if (turns.length === 0) return;
    const { model, system, parameters } = state.draft;
    const first = turns.find(({ message }) => message.role === "user")?.message;
    if (!this.#title) this.#setTitle(titleFrom(textOf(first)));
    try {
      const about = { id: this.#id, title: this.#title, time: Date.now() };
      await saveChat({ ...about, model, system, parameters, turns });
      await this.history.refresh();
    } catch (error) {
      const told = /** @type {Error} */ (error).message;
      this.frame.setProblem(`This chat cannot be kept in the browser's history: ${told}`);
    }
  }

  /** Leaves the first turns; where many go, they stay in the history as a chat of their own. @param {number} length */
  #cut(length) {
    if (this.#turns.length - length > 2) this.#setId(newId());
    if (length === 0) this.#setTitle("");
    this.#turns = this.#turns.slice(0, length);
    this.#thread.cut(length);
    this.#thread.setTail(null);
  }

  /** @param {Message} message */
  #push(message) {
    const turn = { message, meta: null };
    // What failed or was stopped before its first word is no turn.
    this.#thread.cut(this.#turns.length);
    this.#turns = [...this.#turns, turn];
    this.#thread.add(this.#elementOf(turn, this.#turns.length - 1));
  }

  /** @param {...Message} messages */
  #send(...messages) {
    if (this.#running) return;
    this.#thread.setTail(null);
    for (const message of messages) this.#push(message);
    if (messages[0].role === "user") this.#composer.setContent(null);
    this.#ask();
  }

  /** Asks for the answer to the turns as they stand. */
  async #ask() {
    const { model } = state.draft;
    const controller = new AbortController();
    const { element, body, foot } = messageFrame("assistant", model);
    this.#running = controller;
    this.#composer.setBusy(true);
    this.#writeDraft();
    this.#save();
    element.classList.add("live");
    this.#thread.add(element);
    this.#thread.toEnd();
    const shown = renderAnswer(body);
    const asked = buildBody({ model, messages: this.#messages(), stream: true });
    const place = this.#turns.length;
    try {
      const answer = await streamChat(asked, { signal: controller.signal, onDelta: shown.append });
      // Another conversation has been opened meanwhile.
      if (this.#running !== controller) return;
      await this.#take(answer, { model, shown, body, foot, place });
      if (this.#running !== controller) return;
    } catch (error) {
      if (this.#running !== controller) return;
      shown.fail(error, [this.#retryButton(place)]);
    }
    element.classList.remove("live");
    this.#running = null;
    this.#composer.setBusy(false);
    this.#showEnd();
    this.#writeDraft();
    this.#save();
  }

  /**
   * Adds a finished answer, or what there is of a stopped one.
   * @param {import("./api.js").Answer} answer
   * @param {{model: string, shown: ReturnType<typeof renderAnswer>, body: HTMLElement, foot: HTMLElement, place: number}} where
   */
  async #take({ message, ...rest }, { model, shown, body, foot, place }) {
    // A call that was cut off is no call: its arguments are not whole.
    if (rest.aborted) delete message.tool_calls;
    const actions = [this.#retryButton(place)];
    if (rest.aborted && !message.content) {
      shown.end();
      fill(body, h("p", { class: "note" }, "Stopped before the first word."));
      return fill(foot, actions);
    }
    const meta = { model, ...rest };
    this.#turns = [...this.#turns, { message, meta }];
    fillFoot(foot, message, { meta, actions });
    await shown.finish(message);
  }

  /** What the end of the conversation asks for: the answers of tools, or a first question. */
  #showEnd() {
    const calls = this.#turns.at(-1)?.message.tool_calls ?? [];
    if (calls.length > 0) this.#thread.setTail(toolAnswers(calls, (messages) => this.#send(...messages)));
    else this.#thread.setTail(this.#turns.length === 0 ? welcome(findModel(state.draft.model)) : null);
  }

  /** @param {Turn} turn @param {number} index */
  #elementOf({ message, meta }, index) {
    const actions = [];
    if (message.role === "user") actions.push(this.#button("Edit", () => this.#edit(index)));
    if (message.role === "assistant") actions.push(this.#retryButton(index));
    return renderMessage(message, { meta, actions });
  }

  /** @param {number} index of the answer's turn */
  #retryButton(index) {
    return this.#button("Retry", () => {
      this.#cut(index);
      this.#ask();
    });
  }

  /** A button below a turn, which waits while an answer is on its way. @param {string} name @param {() => void} act */
  #button(name, act) {
    const click = () => {
      if (!this.#running) act();
    };
    const dataset = { testid: name.toLowerCase() };
    return h("button", { type: "button", class: "button quiet small", dataset, on: { click } }, name);
  }

  /** @param {number} index of a user's turn */
  #edit(index) {
    const turn = this.#turns[index];
    const form = createComposer({
      label: "Edit your message",
      sendLabel: "Send again",
      testIds: { text: "edit-text", send: "resend", stop: "resend-stop" },
      takesImages,
      onCancel: () => {
        const element = this.#elementOf(turn, index);
        editor.replaceWith(element);
        /** @type {HTMLElement} */ (element.querySelector("[data-testid=edit]")).focus();
      },
      onSend: (content) => {
        if (this.#running) return;
        this.#cut(index);
        this.#send({ role: "user", content });
      },
    });
    form.setContent(turn.message.content);
    const editor = h("div", { class: "message live" }, form);
    this.#thread.replace(index, editor);
    form.focusText();
  }
}

function takesImages() {
  return findModel(state.draft.model)?.capabilities?.input?.includes("image") ?? false;
}

function newId() {
  // Pages that come over plain HTTP from another machine have no `randomUUID`.
  return [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("-");
}
