// Stacked bars over time, in plain SVG, with the same numbers as a table beside.

import { el, filled, table } from "./dom.js";
import { counted, number } from "./format.js";

const HEIGHT = 230, BOTTOM = 24, TOP = 8, LETTER = 6.5;
const COLOURS = 6; // the seventh is for the others
const MOST = 100; // that are told one by one: thousands would take seconds to draw

// rows: { at, key, value }, the value null if it is unknown, which has no height; steps: every `at` of the axis, in order.
export function bars({ rows, steps, label, format, measure, width, when }) {
  const WIDTH = Math.max(300, width);
  const totals = new Map();
  for (const row of rows) totals.set(row.key, (totals.get(row.key) ?? 0) + row.value);
  const sorted = [...totals.keys()].sort((a, b) => totals.get(b) - totals.get(a));
  rows = joined(rows, new Set(sorted.slice(MOST)));
  const keys = sorted.filter((key) => totals.get(key) !== 0);
  const named = keys.slice(0, COLOURS);
  const colour = (key) => (named.includes(key) ? named.indexOf(key) : COLOURS);
  const columns = new Map(steps.map((step) => [step, []]));
  for (const row of rows) columns.get(row.at)?.push(row);
  const highest = Math.max(...[...columns.values()].map((column) => column.reduce((s, row) => s + row.value, 0)), 0);
  const unknown = rows.some((row) => row.value === null);
  if (highest === 0) return el("p", { class: "empty" }, unknown ? "What was spent in this time is unknown." : "Nothing was spent in this time.");

  const top = niceCeiling(highest);
  const marks = [0, top / 2, top];
  const LEFT = 16 + LETTER * Math.max(...marks.map((mark) => format(mark).length));
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const wide = (WIDTH - LEFT) / steps.length;
  const svg = el("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${measure} over time, by model` });
  for (const mark of marks) {
    svg.append(
      el("line", { class: "rule", x1: LEFT, x2: WIDTH, y1: y(mark), y2: y(mark) }),
      el("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end" }, format(mark)),
    );
  }
  const widest = Math.max(...steps.map((step) => label(step).length));
  const every = Math.ceil((steps.length * Math.max(80, 24 + LETTER * widest)) / (WIDTH - LEFT));
  steps.forEach((step, place) => {
    const x = LEFT + place * wide;
    let reached = 0;
    const column = columns.get(step).sort((a, b) => colour(a.key) - colour(b.key));
    const group = el("g", {}, el("title", {}, [
      (when === "when" ? "" : `${when} `) + label(step), ...column.map((row) => `${title(row.key)}: ${format(row.value)}`),
    ].join("\n")));
    for (const row of column) {
      group.append(el("rect", {
        class: `f${colour(row.key)}`, x: x + wide * 0.12, width: wide * 0.76, rx: 1.5,
        y: y(reached + row.value), height: Math.max(0, y(reached) - y(reached + row.value)),
      }));
      reached += row.value;
    }
    svg.append(group);
    // One that would be cut off at the edge is left out.
    const middle = x + wide / 2;
    if (place % every === 0 && middle + (LETTER * label(step).length) / 2 <= WIDTH) {
      svg.append(el("text", { x: middle, y: HEIGHT - 6, "text-anchor": "middle" }, label(step)));
    }
  });

  const legend = named.map((key, place) =>
    el("li", {}, el("span", { class: `dot f${place}` }), title(key)));
  if (keys.length > named.length) {
    legend.push(el("li", {}, el("span", { class: `dot f${COLOURS}` }), counted(keys.length - named.length, "other")));
  }
  return el("div", { class: "chart" }, svg, el("ul", { class: "legend" }, ...legend),
    el("details", {}, el("summary", {}, "As a table"),
      table(rows, [[when, (r) => label(r.at)], ["model", (r) => title(r.key)], [measure.toLowerCase(), (r) => format(r.value), "n"]])));
}

const title = (key) => filled(key || "no model");

// The rows with those of `least` told as one, in each step.
function joined(rows, least) {
  const others = new Map();
  const told = rows.filter((row) => {
    if (!least.has(row.key)) return true;
    const sum = others.get(row.at) ?? { at: row.at, key: `the ${number(least.size)} least`, value: null };
    if (row.value !== null) sum.value += row.value;
    others.set(row.at, sum);
    return false;
  });
  return [...told, ...others.values()];
}

// Half of it, which is written beside the chart as well, has a single digit.
function niceCeiling(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [2, 4, 6, 8, 10].map((factor) => factor * size).find((nice) => nice >= value);
}
