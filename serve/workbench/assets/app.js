// @ts-check
// The page's frame: tabs, key, theme, drawers, and whether the server is there.

import { getJson, hasKey, setKey } from "./api.js";
import { h, fill } from "./dom.js";
import { errorBox } from "./message_view.js";
import { mount as mountSettings } from "./settings_panel.js";
import { state, subscribe, update, updateDraft } from "./store.js";

/** @type {Record<string, () => Promise<{mount: (container: HTMLElement) => void}>>} */
const VIEWS = {
  chat: () => import("./chat_view.js"),
  compare: () => import("./compare_view.js"),
  api: () => import("./calls_view.js"),
  samples: () => import("./samples_view.js"),
  runs: () => import("./runs_view.js"),
};
const WITH_SETTINGS = new Set(["chat", "compare", "api"]);
const THEMES = ["auto", "light", "dark"];
const THEME = "tunery-theme";
const MODEL = "tunery-model";
const HEALTH_EVERY_MS = 20_000;

/** @param {string} id */
const at = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

// --- Tabs

/** @type {Set<string>} */
const mounted = new Set();
let isStarted = false;

/** @param {string} name */
async function showTab(name) {
  for (const other of Object.keys(VIEWS)) {
    const tab = at(`tab-${other}`);
    tab.setAttribute("aria-selected", String(other === name));
    tab.tabIndex = other === name ? 0 : -1;
    at(`panel-${other}`).hidden = other !== name;
  }
  at("settings").hidden = !WITH_SETTINGS.has(name);
  at("settings-open").hidden = !WITH_SETTINGS.has(name);
  closeDrawers();
  if (!isStarted || mounted.has(name)) return;
  mounted.add(name);
  const panel = at(`panel-${name}`);
  try {
    const { mount } = await VIEWS[name]();
    fill(panel);
    mount(panel);
    // So that a view which shows itself upon changes has a first one.
    update({});
  } catch (error) {
    mounted.delete(name);
    fill(panel, h("div", { class: "view" }, errorBox(error)));
    throw error;
  }
}

function tabOfAddress() {
  const name = location.hash.slice(1);
  return name in VIEWS ? name : "chat";
}

/** @param {string} name */
function goTo(name) {
  if (location.hash !== `#${name}`) location.hash = name;
  if (state.tab !== name) update({ tab: name });
}

function startTabs() {
  const names = Object.keys(VIEWS);
  const list = /** @type {HTMLElement} */ (document.querySelector("[role=tablist]"));
  list.addEventListener("click", (event) => {
    const tab = /** @type {HTMLElement} */ (event.target).closest("[role=tab]");
    if (tab) goTo(tab.id.replace("tab-", ""));
  });
  list.addEventListener("keydown", (event) => {
    const place = names.indexOf(state.tab);
    const steps = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 };
    const next = /** @type {Record<string, number>} */ (steps)[event.key];
    // With another key these are the browser's own, such as Alt and the left arrow to go back.
    if (next === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const name = names[(next + names.length) % names.length];
    goTo(name);
    at(`tab-${name}`).focus();
  });
  addEventListener("hashchange", () => goTo(tabOfAddress()));
  at("skip").addEventListener("click", (event) => {
    event.preventDefault();
    at("views").focus();
  });
  let shown = "";
  subscribe(({ tab }) => {
    if (tab === shown) return;
    shown = tab;
    if (location.hash !== `#${tab}`) location.hash = tab;
    showTab(tab);
  });
  update({ tab: tabOfAddress() });
}

// --- Drawers of narrow windows

function closeDrawers() {
  for (const drawer of document.querySelectorAll(".drawer.open")) {
    drawer.classList.remove("open");
    const opener = /** @type {HTMLElement | null} */ (document.querySelector(`[aria-controls=${drawer.id}]`));
    opener?.setAttribute("aria-expanded", "false");
    if (drawer.contains(document.activeElement)) opener?.focus();
  }
}

function startDrawers() {
  at("settings-open").dataset.opens = "settings";
  at("settings-backdrop").dataset.closes = "settings";
  document.addEventListener("click", (event) => {
    const { target } = event;
    if (!(target instanceof Element)) return;
    const opener = /** @type {HTMLElement | null} */ (target.closest("[data-opens]"));
    if (target.closest("[data-closes]")) return closeDrawers();
    if (!opener) return;
    const drawer = at(opener.dataset.opens ?? "");
    drawer.classList.add("open");
    opener.setAttribute("aria-expanded", "true");
    /** @type {HTMLElement | null} */ (drawer.querySelector("button, select, input, textarea"))?.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeDrawers();
  });
}

// --- Theme

function startTheme() {
  const button = at("theme");
  const show = (/** @type {string} */ theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const word = { auto: "Auto", light: "Light", dark: "Dark" }[theme] ?? "";
    fill(button, h("span", { class: "wide-only" }, "Theme: "), word);
    button.setAttribute("aria-label", `Theme: ${theme}. Change it`);
    button.title = "Theme: as the system has it, light, or dark";
  };
  let theme = localStorage.getItem(THEME) ?? "auto";
  show(theme);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem(THEME, theme);
    show(theme);
  });
}

// --- Key

function startKey() {
  const dialog = /** @type {HTMLDialogElement} */ (at("key-dialog"));
  const input = /** @type {HTMLInputElement} */ (at("key-input"));
  at("key").addEventListener("click", () => askForKey());
  at("key-close").addEventListener("click", () => dialog.close());
  at("key-forget").addEventListener("click", () => {
    setKey("");
    location.reload();
  });
  // Without a key there is nothing behind the dialog to go back to.
  dialog.addEventListener("close", () => {
    if (!isStarted) dialog.showModal();
  });
  at("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    at("key-problem").textContent = "";
    setKey(input.value.trim());
    try {
      await start();
      dialog.close();
      input.value = "";
    } catch (error) {
      const { status, message } = /** @type {import("./api.js").ApiError} */ (error);
      if (status === 401) setKey("");
      at("key-problem").textContent = status === 401 ? "The server does not know this key." : message;
      input.select();
    }
  });
}

/** @param {string} [problem] */
function askForKey(problem = "") {
  const dialog = /** @type {HTMLDialogElement} */ (at("key-dialog"));
  at("key").hidden = false;
  at("key-close").hidden = !isStarted;
  at("key-forget").hidden = !hasKey();
  at("key-problem").textContent = problem;
  if (!dialog.open) dialog.showModal();
}

// --- Server

/** Loads the models; once they are there, the views. */
async function start() {
  const models = (await getJson("/v1/models")).data;
  update({ models });
  const names = models.map((/** @type {any} */ { id }) => id);
  if (!names.includes(state.draft.model)) {
    const last = localStorage.getItem(MODEL) ?? "";
    updateDraft({ model: names.includes(last) ? last : (names[0] ?? "") });
  }
  if (isStarted) return;
  isStarted = true;
  mountSettings(at("settings"));
  subscribe(({ draft }) => localStorage.setItem(MODEL, draft.model));
  await showTab(state.tab);
}

async function load() {
  try {
    const about = await getJson("/workbench/api/about");
    update({ about });
    at("key").hidden = !about.asks_for_keys;
    if (about.asks_for_keys && !hasKey()) return askForKey();
    await start();
  } catch (error) {
    if (/** @type {any} */ (error).status === 401) return askForKey("The server no longer knows this key.");
    if (isStarted) throw error;
    const again = h("button", { type: "button", class: "button small", on: { click: load } }, "Try again");
    fill(at("panel-chat"), h("div", { class: "view" }, errorBox(error, [again])));
    mounted.delete("chat");
    return;
  }
}

async function checkHealth() {
  const health = at("health");
  const [place, word] = await getJson("/health/ready").then(
    () => ["ready", "Ready"],
    ({ status }) => (status === 503 ? ["waiting", "Loading"] : ["down", "Not reachable"]),
  );
  if (health.dataset.state === place && health.textContent === word) return;
  health.dataset.state = place;
  fill(health, h("span", { class: "health-word" }, word));
}

function startHealth() {
  checkHealth();
  setInterval(() => {
    if (!document.hidden) checkHealth();
  }, HEALTH_EVERY_MS);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) checkHealth();
  });
}

startTheme();
startDrawers();
startKey();
startTabs();
load();
startHealth();
