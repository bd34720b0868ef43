// @ts-check
// The turns before a question, folded: rendered only once somebody looks.

import { fill, h } from "./dom.js";
import { renderMessage } from "./message_view.js";
import { counted } from "./metrics.js";

/** @param {import("./store.js").Message[]} turns */
export function foldEarlier(turns) {
  const list = h("div", { class: "earlier-turns" });
  const details = h("details", {}, h("summary", {}, counted(turns.length, "earlier message")), list);
  details.addEventListener("toggle", () => {
    if (details.open && !list.childElementCount) fill(list, turns.map((turn) => renderMessage(turn)));
  });
  return details;
}
