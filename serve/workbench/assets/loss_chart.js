// @ts-check
// The losses of a training run as a small SVG, drawn without a library.

import { h } from "./dom.js";
import { svg } from "./svg.js";

const FRAME = { width: 360, height: 190, left: 46, right: 12, top: 10, bottom: 40 };
const NUM_TICKS = 5;
const MAX_DOTS = 12;

/** @typedef {[number, number]} Point a step and its loss */
/** @typedef {{name: string, kind: string, points: Point[]}} Series */

let numCharts = 0;

/**
 * The curves over the steps with their legend; null where there is nothing to draw.
 * @param {{train: Point[], validation: Point[]}} losses
 * @param {string} run the run's name
 */
export function lossChart(losses, run) {
  const series = [
    { name: "Training", kind: "series-1", points: finite(losses.train) },
    { name: "Validation", kind: "series-2", points: finite(losses.validation) },
  ].filter(({ points }) => points.length);
  if (!series.length) return null;
  const legend = series.map(({ name, kind }) =>
    h("span", {}, h("span", { class: `swatch ${kind}` }), name),
  );
  return h("div", { class: "loss-chart" }, plot(series, run), h("div", { class: "legend" }, legend));
}

/** @param {Point[] | undefined} points */
function finite(points = []) {
  return points.filter(([, loss]) => Number.isFinite(loss));
}

/** @param {Series[]} series @param {string} run */
function plot(series, run) {
  const { width, height, left, right, top, bottom } = FRAME;
  const points = series.flatMap((one) => one.points);
  const steps = ticks(0, Math.max(...points.map(([step]) => step)));
  const losses = ticks(0, Math.max(...points.map(([, loss]) => loss)));
  const x = scale(steps, left, width - right);
  const y = scale(losses, height - bottom, top);
  const id = `loss-chart-${(numCharts += 1)}`;
  const middle = (top + height - bottom) / 2;
  return svg(
    "svg",
    {
      class: "plot",
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-labelledby": `${id}-title ${id}-description`,
    },
    svg("title", { id: `${id}-title` }, `Losses of ${run}`),
    svg("desc", { id: `${id}-description` }, describe(series)),
    ...losses.map((value) => line("grid", [left, y(value)], [width - right, y(value)])),
    ...losses.map((value) => text(left - 8, y(value) + 4, String(value), "end")),
    ...steps.map((value) => text(x(value), height - bottom + 16, String(value), "middle")),
    line("axis", [left, height - bottom], [width - right, height - bottom]),
    text((left + width - right) / 2, height - 6, "Step", "middle"),
    svg("text", { transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle" }, "Loss"),
    ...series.flatMap((one) => curve(one, x, y)),
  );
}

/** What the picture shows, for those who cannot see it. @param {Series[]} series */
function describe(series) {
  const sentences = series.map(({ name, points }) => {
    const [firstStep, firstLoss] = points[0];
    const [lastStep, lastLoss] = points[points.length - 1];
    const ends = `${firstLoss.toFixed(3)} at step ${firstStep}, ${lastLoss.toFixed(3)} at step ${lastStep}`;
    return `${name} loss: ${ends}.`;
  });
  return sentences.join(" ");
}

/**
 * A line, with dots where the points are few enough to be told apart.
 * @param {Series} series
 * @param {(value: number) => number} x
 * @param {(value: number) => number} y
 */
function curve({ kind, points }, x, y) {
  const places = points.map(([step, loss]) => [x(step).toFixed(1), y(loss).toFixed(1)]);
  const path = svg("polyline", { class: kind, points: places.map(String).join(" ") });
  if (points.length > MAX_DOTS) return [path];
  return [path, ...places.map(([cx, cy]) => svg("circle", { class: `dot ${kind}`, cx, cy, r: "3" }))];
}

/**
 * Round numbers that cover a range, evenly apart.
 * @param {number} low
 * @param {number} high
 */
function ticks(low, high) {
  const rough = (high - low || 1) / (NUM_TICKS - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find((one) => one * power >= rough * 0.999) ?? 10;
  const apart = factor * power;
  const first = Math.floor(low / apart);
  const last = Math.max(Math.ceil(high / apart - 1e-9), first + 1);
  return Array.from({ length: last - first + 1 }, (_, index) =>
    Number(((first + index) * apart).toPrecision(6)),
  );
}

/** @param {number[]} values @param {number} from @param {number} to */
function scale(values, from, to) {
  const low = values[0];
  const high = values[values.length - 1];
  return (/** @type {number} */ value) => from + ((value - low) / (high - low)) * (to - from);
}

/** @param {string} kind @param {[number, number]} from @param {[number, number]} to */
function line(kind, [x1, y1], [x2, y2]) {
  return svg("line", { class: kind, x1: `${x1}`, y1: `${y1}`, x2: `${x2}`, y2: `${y2}` });
}

/** @param {number} x @param {number} y @param {string} words @param {string} anchor */
function text(x, y, words, anchor) {
  return svg("text", { x: x.toFixed(1), y: y.toFixed(1), "text-anchor": anchor }, words);
}
