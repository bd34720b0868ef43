// @ts-check
// Where a turn is written: text, and images where the model takes them.

import { h } from "./dom.js";
import { createImageTray, IMAGE_TYPES, takeDrops } from "./image_tray.js";
import { imagesOf, textOf } from "./message_text.js";

const TEST_IDS = { text: "composer-text", send: "send", stop: "stop" };

/**
 * @typedef {string | ({type: "text", text: string} | {type: "image_url", image_url: {url: string}})[]} Content
 * @typedef {object} Options
 * @property {string} label of the text field
 * @property {(content: Content) => void} onSend
 * @property {() => void} [onStop]
 * @property {() => void} [onCancel] adds a button to give up, as when a turn is edited
 * @property {() => boolean} [takesImages]
 * @property {string} [sendLabel]
 * @property {string} [placeholder]
 * @property {{text: string, send: string, stop: string}} [testIds]
 *
 * @typedef {object} Handle besides the event `input`, which tells of each change
 * @property {(isBusy: boolean) => void} setBusy shows the button that stops, instead of the one that sends
 * @property {(content: any) => void} setContent null empties it
 * @property {() => Content | null} getContent null where there is nothing to send
 * @property {() => void} focusText
 * @property {() => void} refresh shows whether images are taken, after a change of the model
 */

/** A form that gives its content to `onSend`. @param {Options} options @returns {HTMLFormElement & Handle} */
export function createComposer(options) {
  const { onSend, onStop = () => {}, onCancel, takesImages = () => false } = options;
  const { form, text, hint, attach, picker, send, stop, tray } = buildForm(options);
  let isBusy = false;

  /** @returns {Content | null} */
  const getContent = () => {
    const written = text.value.trim();
    const images = tray.urls();
    if (images.length === 0) return written || null;
    const parts = images.map((url) => ({ type: /** @type {const} */ ("image_url"), image_url: { url } }));
    return written ? [{ type: "text", text: written }, ...parts] : parts;
  };
  const submit = () => {
    const content = getContent();
    if (isBusy || content === null) return text.focus();
    hint.textContent = "";
    onSend(content);
  };
  /** @param {Iterable<File>} files */
  const addFiles = async (files) => {
    hint.textContent = await tray.add(files);
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  text.addEventListener("keydown", (event) => {
    // While an input method composes a word, Enter chooses the word.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
    if (event.key === "Escape") onCancel?.();
  });
  text.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0 || !takesImages()) return;
    event.preventDefault();
    addFiles(files);
  });
  takeDrops(form, takesImages, addFiles);
  attach.addEventListener("click", () => picker.click());
  picker.addEventListener("change", () => {
    addFiles([...(picker.files ?? [])]);
    picker.value = "";
  });
  stop.addEventListener("click", onStop);

  /** @type {Handle} */
  const handle = {
    setBusy(busy) {
      const hadFocus = document.activeElement === (busy ? send : stop);
      isBusy = busy;
      send.hidden = busy;
      stop.hidden = !busy;
      if (hadFocus) (busy ? stop : text).focus();
    },
    setContent(content) {
      const message = { role: "user", content: content ?? "" };
      text.value = textOf(message);
      tray.set(imagesOf(message));
    },
    getContent,
    focusText: () => text.focus(),
    refresh: () => {
      attach.hidden = !takesImages();
    },
  };
  handle.refresh();
  return Object.assign(form, handle);
}

/** @param {Options} options */
function buildForm({ label, placeholder = "", sendLabel = "Send", onCancel, testIds = TEST_IDS }) {
  const tray = createImageTray(() => form.dispatchEvent(new Event("input")));
  const text = h("textarea", { rows: 1, placeholder, "aria-label": label, dataset: { testid: testIds.text } });
  const hint = h("span", { class: "hint", role: "status" });
  const picker = h("input", {
    type: "file",
    accept: IMAGE_TYPES.join(","),
    multiple: true,
    hidden: true,
    "aria-label": "Images",
  });
  const attach = h("button", { type: "button", class: "button quiet", hidden: true }, "Add images");
  const send = h("button", { class: "button primary", dataset: { testid: testIds.send } }, sendLabel);
  const stop = h("button", { type: "button", class: "button", hidden: true, dataset: { testid: testIds.stop } }, "Stop");
  const cancel =
    onCancel && h("button", { type: "button", class: "button quiet", on: { click: () => onCancel() } }, "Cancel");
  const form = h(
    "form",
    { class: "composer" },
    tray.element,
    text,
    h("div", { class: "composer-foot" }, attach, picker, hint, cancel, stop, send),
  );
  return { form, text, hint, attach, picker, send, stop, tray };
}
