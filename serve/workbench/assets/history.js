// @ts-check
// Past chats, kept in this browser alone.

import { fill, h } from "./dom.js";

const DATABASE = "tunery";
const TITLES = "titles";
const CHATS = "chats";
const LONGEST_TITLE = 60;

/**
 * @typedef {{id: string, title: string, time: number}} Title
 * @typedef {object} Chat
 * @property {string} id
 * @property {string} title
 * @property {number} time of the last change, in ms since 1970
 * @property {string} model
 * @property {string} system
 * @property {Record<string, any>} parameters
 * @property {{message: import("./store.js").Message, meta: import("./message_view.js").Meta | null}[]} turns
 */

/** @type {Promise<IDBDatabase> | null} */
let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => {
      // Apart, so that the list need not load the chats with their images.
      for (const name of [TITLES, CHATS]) request.result.createObjectStore(name, { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

/**
 * Runs `act` in one transaction over both stores; gives what its request found.
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(titles: IDBObjectStore, chats: IDBObjectStore) => IDBRequest<T>} act
 * @returns {Promise<T>}
 */
async function within(mode, act) {
  const transaction = (await open()).transaction([TITLES, CHATS], mode);
  return new Promise((resolve, reject) => {
    const request = act(transaction.objectStore(TITLES), transaction.objectStore(CHATS));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** @param {Chat} chat */
export async function saveChat(chat) {
  const { id, title, time } = chat;
  await within("readwrite", (titles, chats) => {
    titles.put({ id, title, time });
    return chats.put(chat);
  });
}

/** @param {string} id @returns {Promise<Chat | undefined>} */
export function loadChat(id) {
  return within("readonly", (_, chats) => chats.get(id));
}

/** The latest first. @returns {Promise<Title[]>} */
async function listTitles() {
  const titles = await within("readonly", (titles) => titles.getAll());
  return titles.sort((a, b) => b.time - a.time);
}

/** @param {string} id */
function removeChat(id) {
  return within("readwrite", (titles, chats) => {
    titles.delete(id);
    return chats.delete(id);
  });
}

function removeAll() {
  return within("readwrite", (titles, chats) => {
    titles.clear();
    return chats.clear();
  });
}

/** A chat's title from its first words. @param {string} text */
export function titleFrom(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > LONGEST_TITLE ? `${line.slice(0, LONGEST_TITLE - 1)}…` : line || "Images";
}

/**
 * The list of past chats.
 * @param {{onOpen: (id: string) => void, onRename: (id: string, title: string) => void,
 *   onRemove: (id: string | null) => void}} listeners onRemove: gets null where all are removed
 */
export function mountHistory({ onOpen, onRename, onRemove }) {
  const list = h("ul", { class: "history-list", dataset: { testid: "history-list" } });
  const clear = h("button", { type: "button", class: "button quiet small danger" }, "Delete all");
  let current = "";
  const refresh = async () => {
    const titles = await listTitles();
    clear.hidden = titles.length === 0;
    if (titles.length === 0) return fill(list, h("li", { class: "hint" }, "No chats yet."));
    fill(list, titles.map((title) => item(title)));
    markCurrent();
  };
  const markCurrent = () => {
    for (const element of /** @type {Iterable<HTMLElement>} */ (list.children)) {
      const isCurrent = element.dataset.id === current;
      if (isCurrent) element.setAttribute("aria-current", "true");
      else element.removeAttribute("aria-current");
    }
  };
  const item = (/** @type {Title} */ { id, title }) => {
    const openButton = h(
      "button",
      { type: "button", class: "history-open", title, on: { click: () => onOpen(id) } },
      title,
    );
    const rename = h("button", { type: "button", class: "button quiet small" }, "Rename");
    const remove = h("button", { type: "button", class: "button quiet small danger" }, "Delete");
    const element = h(
      "li",
      { class: "history-item", dataset: { id, testid: "history-item" } },
      openButton,
      h("div", { class: "history-acts" }, rename, remove),
    );
    rename.setAttribute("aria-label", `Rename ${title}`);
    remove.setAttribute("aria-label", `Delete ${title}`);
    rename.addEventListener("click", () => editTitle(element, title, async (renamed) => {
      if (renamed) await renameChat(id, renamed);
      if (renamed) onRename(id, renamed);
      await refresh();
    }));
    remove.addEventListener("click", async () => {
      if (!confirm(`Delete the chat “${title}”?`)) return;
      await removeChat(id);
      await refresh();
      onRemove(id);
    });
    return element;
  };
  clear.addEventListener("click", async () => {
    if (!confirm("Delete all chats of this browser?")) return;
    await removeAll();
    await refresh();
    onRemove(null);
  });
  return {
    element: h("div", { class: "history-body" }, list, h("div", {}, clear)),
    refresh,
    /** @param {string} id of the chat that is open */
    show(id) {
      current = id;
      markCurrent();
    },
  };
}

/** @param {string} id @param {string} title */
async function renameChat(id, title) {
  const chat = await loadChat(id);
  if (chat) await saveChat({ ...chat, title });
}

/** @param {HTMLElement} element @param {string} title @param {(title: string) => void} onEnd gets "" where nothing is to change */
function editTitle(element, title, onEnd) {
  const input = h("input", { type: "text", value: title, "aria-label": "Title", maxLength: 200 });
  let isOver = false;
  const end = (/** @type {string} */ result) => {
    if (isOver) return;
    isOver = true;
    onEnd(result);
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) end(input.value.trim());
    if (event.key === "Escape") end("");
  });
  input.addEventListener("blur", () => end(input.value.trim()));
  fill(element, input);
  input.select();
}
