// @ts-check
// The turns on screen. Finished ones are never built anew, and the end stays in sight while it grows.

import { fill, h } from "./dom.js";

const NEAR_END_PX = 60;

export function createThread() {
  const list = h("div", {});
  const tail = h("div", {});
  const toEndButton = h("button", { type: "button", class: "button small" }, "To the end");
  const jump = h("div", { class: "jump", hidden: true }, toEndButton);
  const element = h(
    "div",
    { class: "log", role: "region", "aria-label": "Conversation", tabIndex: 0 },
    list,
    tail,
    jump,
  );
  let isAtEnd = true;

  const toEnd = () => {
    isAtEnd = true;
    element.scrollTop = element.scrollHeight;
    jump.hidden = true;
  };
  element.addEventListener("scroll", () => {
    isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END_PX;
    jump.hidden = isAtEnd;
  });
  toEndButton.addEventListener("click", toEnd);
  const growth = new ResizeObserver(() => {
    if (isAtEnd) element.scrollTop = element.scrollHeight;
  });
  for (const part of [element, list, tail]) growth.observe(part);

  return {
    element,
    toEnd,
    /** @param {HTMLElement[]} turns */
    show(turns) {
      fill(list, turns);
      toEnd();
    },
    /** @param {HTMLElement} turn */
    add(turn) {
      list.append(turn);
    },
    /** Leaves the first `length` turns. @param {number} length */
    cut(length) {
      while (list.children.length > length) list.lastElementChild?.remove();
    },
    /** @param {number} index @param {HTMLElement} turn */
    replace(index, turn) {
      list.children[index].replaceWith(turn);
    },
    /** What stands below the turns. @param {HTMLElement | null} other */
    setTail(other) {
      fill(tail, other);
    },
  };
}
