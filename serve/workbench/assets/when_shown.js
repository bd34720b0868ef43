// @ts-check
// Views that load something do so when they are looked at, not when the page opens.

import { state, subscribe } from "./store.js";

/**
 * Calls `load` each time the tab is opened. Where it failed, as without an API key, it is called
 * again once the models have been loaded anew.
 * @param {string} tab
 * @param {() => Promise<void>} load shows its own errors, and throws them on
 */
export function whenShown(tab, load) {
  /** @type {string | null} */
  let shown = null;
  let hasFailed = false;
  let { models } = state;

  async function look() {
    const isOpened = state.tab === tab && shown !== tab;
    const isRetried = state.tab === tab && hasFailed && state.models !== models;
    shown = state.tab;
    ({ models } = state);
    if (!isOpened && !isRetried) return;
    hasFailed = false;
    try {
      await load();
    } catch {
      hasFailed = true;
    }
  }

  subscribe(look);
  look();
}
