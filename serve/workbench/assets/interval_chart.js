// @ts-check
// A difference with its interval on a line that shows where "no difference" is.

import { svg } from "./svg.js";

const FRAME = { width: 360, height: 36, edge: 8, middle: 11 };

/** @param {number} delta @param {[number, number]} interval */
export function intervalChart(delta, [low, high]) {
  const { width, height, edge, middle } = FRAME;
  const reach = Math.max(Math.abs(low), Math.abs(high), Math.abs(delta), 0.01) * 1.1;
  const x = (/** @type {number} */ value) =>
    (edge + ((value + reach) / (2 * reach)) * (width - 2 * edge)).toFixed(1);
  const y = String(middle);
  const words = { y: String(height - 3) };
  // The figures stand above it, so those who cannot see it lose nothing.
  return svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("line", { class: "grid", x1: String(edge), x2: String(width - edge), y1: y, y2: y }),
    svg("line", { class: "axis", x1: x(0), x2: x(0), y1: "2", y2: String(2 * middle - 2) }),
    svg("line", { class: "series-1", x1: x(low), x2: x(high), y1: y, y2: y }),
    svg("circle", { class: "dot series-1", cx: x(delta), cy: y, r: "4" }),
    svg("text", { ...words, x: String(edge), "text-anchor": "start" }, "worse"),
    svg("text", { ...words, x: x(0), "text-anchor": "middle" }, "no difference"),
    svg("text", { ...words, x: String(width - edge), "text-anchor": "end" }, "better"),
  );
}
