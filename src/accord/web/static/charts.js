// Curves as SVG, and as a table for whoever does not see them. Colours and dashes are attributes: the page allows no inline style.

import { make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const COLORS = ["#0b6e99", "#b34a12", "#3d6f2e", "#8a4f9e", "#a3174f", "#6b5d00", "#1f2933", "#0a7a6b"];
const FAINT = "#55606b", GRID = "#e3e7eb", DASHES = "5 4";
const WIDTH = 420, HEIGHT = 220, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 36;

export const colorOf = (run) => COLORS[run % COLORS.length];

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A number as people read it: four digits that count. */
export function readable(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-4)) return value.toExponential(2);
  return String(Number(value.toPrecision(size >= 1e4 ? 6 : 4)));
}

function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const around = Math.abs(high) / 2 || 0.5; // of a line that does not move
  if (high - low < 1e-12 * Math.max(1, Math.abs(high))) return [low - around, high + around];
  const margin = 0.05 * (high - low);
  return [low - margin, high + margin];
}

function ticks(low, high, count = 4) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough * 0.999999);
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high && found.length < 20; index += 1) found.push(index * step);
  return found;
}

const text = (x, y, words, anchor) => svg("text", { x, y, "font-size": 12, fill: FAINT, "text-anchor": anchor }, words);

/** How a line is drawn, for the table and the list of runs. */
export function swatch(color, dashed = false) {
  const line = svg("line", { x1: 0, x2: 28, y1: 5, y2: 5, stroke: color, "stroke-width": 3, ...(dashed ? { "stroke-dasharray": DASHES } : {}) });
  return svg("svg", { viewBox: "0 0 28 10", class: "swatch", "aria-hidden": "true" }, line);
}

/**
 * Lines over steps.
 * @param lines {points: [[step, value], ...], color, dashed}; those without points are left out.
 * @param label what the chart shows, for screen readers.
 */
export function chart(lines, label) {
  const drawn = lines.filter((line) => line.points.length);
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", role: "img", "aria-label": label });
  if (!drawn.length) return root;
  const [left, right] = range(drawn.flatMap((line) => line.points.map((point) => point[0])));
  const [low, high] = range(drawn.flatMap((line) => line.points.map((point) => point[1])));
  const across = (step) => LEFT + ((step - left) / (right - left)) * (WIDTH - LEFT - RIGHT);
  const down = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  for (const tick of ticks(low, high)) {
    root.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: down(tick), y2: down(tick), stroke: GRID }), text(LEFT - 6, down(tick) + 4, readable(tick), "end"));
  }
  for (const tick of ticks(left, right)) root.append(text(across(tick), HEIGHT - BOTTOM + 16, readable(tick), "middle"));
  for (const line of drawn) {
    const places = line.points.map(([step, value]) => [across(step).toFixed(1), down(value).toFixed(1)]);
    const dashes = line.dashed ? { "stroke-dasharray": DASHES } : {};
    root.append(svg("polyline", { points: places.map((place) => place.join(",")).join(" "), fill: "none", stroke: line.color, "stroke-width": 2, ...dashes }));
    if (places.length <= 40) for (const [cx, cy] of places) root.append(svg("circle", { cx, cy, r: 2.5, fill: line.dashed ? "#fff" : line.color, stroke: line.color }));
  }
  root.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "step", "middle"));
  return root;
}

/** The same as a table: the last, lowest and highest value of each line. */
export function table(lines, label) {
  const head = ["line", "last", "at step", "lowest", "highest"].map((name, place) => make("th", { scope: "col", className: place ? "n" : "", textContent: name }));
  const rows = lines.map((line) => {
    const odd = line.not_finite ? ` (${line.not_finite} not finite)` : "";
    const numbers = [line.last, line.at, line.low, line.high].map((value) => make("td", { className: "n", textContent: readable(value) }));
    return make("tr", {}, make("th", { scope: "row" }, swatch(line.color, line.dashed), ` ${line.title}${odd}`), ...numbers);
  });
  const found = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  return make("div", { className: "scroll", tabIndex: 0, aria: { role: "region", label: `${label}: numbers` } }, found);
}
