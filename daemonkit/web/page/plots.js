// The history of the last 15 minutes, as plots in SVG and as numbers.

import { $, el, keyed, note, setText } from "./dom.js";
import { bytes, duration, isMapping, isNumber, number, percent } from "./text.js";

const SPAN = 900;
const HEIGHT = 100;
// Seconds of a point.
const POINT = 4;
// Answers without a new sample, after which all are asked for again.
const MISSES = 10;
const ROUND_TIMES = [20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400];
const SVG = "http://www.w3.org/2000/svg";
const PLOTS = [
  { title: "Events per second", shown: number, least: 1,
    series: [["received", "received"], ["handled", "handled"], ["failed", "failed"], ["refused", "refused"]] },
  { title: "Waiting events", shown: number, least: 10, series: [["waiting", "waiting"]] },
  { title: "Age of the oldest waiting event", shown: duration, least: 1, series: [["oldest_age", "age"]] },
  { title: "Handler time", shown: duration, least: 0.001,
    series: [["handler_median", "median"], ["handler_p99", "99th percentile"]] },
  { title: "CPU, of one core", shown: percent, least: 0.1, series: [["cpu", "CPU"]] },
  { title: "Memory", shown: bytes, least: 2 ** 20, series: [["memory", "memory"]] },
];
const KEYS = PLOTS.flatMap((plot) => plot.series.map(([key]) => key));

// Samples of one process, oldest first: {time, received, ...}.
export class History {
  constructor() {
    this.interval = 1;
    this.clear();
  }

  clear() {
    this.samples = [];
    this.misses = 0;
  }

  get path() {
    const last = this.samples.at(-1);
    return last && this.misses < MISSES ? `status/history?since=${last.time}` : "status/history";
  }

  // Adds an answer's samples; returns what is wrong with it, "" if nothing is.
  add(answer) {
    if (!isMapping(answer) || !isMapping(answer.series) || !(answer.interval > 0)) {
      return "The history has no series.";
    }
    this.interval = answer.interval;
    // The daemon's clock was set back, perhaps: what comes now would be taken for known.
    if (this.misses >= MISSES) this.clear();
    const { start, interval, series } = answer;
    const columns = KEYS.filter((key) => Array.isArray(series[key]));
    const count = Math.max(0, ...columns.map((key) => series[key].length));
    const last = this.samples.at(-1)?.time ?? -Infinity;
    for (let i = 0; i < count && isNumber(start); i += 1) {
      const time = start + i * interval;
      if (time <= last + interval / 2) continue;
      const sample = { time };
      for (const key of columns) if (isNumber(series[key][i])) sample[key] = series[key][i];
      this.samples.push(sample);
    }
    const end = this.samples.at(-1)?.time ?? 0;
    this.misses = end > last ? 0 : this.misses + 1;
    this.samples = this.samples.filter((sample) => sample.time > end - SPAN);
    return "";
  }
}

export function drawPlots(section, history, problem = "") {
  note(section, problem || (history.samples.length ? "" : "No samples yet."));
  keyed($(".plots", section), PLOTS, (plot) => plot.title, (plot) => makePlot(plot, history));
}

function makePlot(plot, history) {
  const lines = plot.series.map((_, i) => svg("path", { class: `line line-${i}` }));
  const picture = svg("svg", { role: "img", viewBox: `0 0 ${SPAN} ${HEIGHT}`, preserveAspectRatio: "none" });
  picture.append(svg("path", { class: "grid", d: "M0 0.5H900M0 50H900M300 0V100M600 0V100" }), ...lines);
  const top = el("span", { class: "top", "aria-hidden": "true" });
  const legend = plot.series.map(([, name], i) => makeLegend(name, i));
  const node = el("figure", {},
    el("figcaption", {}, el("h3", {}, plot.title), top),
    el("div", { class: "frame" }, picture),
    el("p", { class: "axis", "aria-hidden": "true" }, ...["15 min ago", "10", "5", "now"].map((text) => el("span", {}, text))),
    el("table", {},
      el("caption", { class: "unseen" }, `${plot.title}, in numbers`),
      el("thead", {}, el("tr", {}, ...["", "now", "least", "most"].map(headCell))),
      el("tbody", {}, ...legend.map((row) => row.node)),
    ),
  );
  const update = () => {
    const most = ceiling(history.samples, plot);
    setText(top, `0 to ${plot.shown(most)}`);
    const told = plot.series.map(([key, name], i) => {
      setAttribute(lines[i], "d", pathOf(history, key, most));
      const numbers = numbersOf(history.samples, key).map(plot.shown);
      legend[i].update(numbers);
      return `${name} now ${numbers[0]}, least ${numbers[1]}, most ${numbers[2]}`;
    });
    setAttribute(picture, "aria-label", `${plot.title}, last 15 minutes: ${told.join("; ")}`);
  };
  return { node, update };
}

const headCell = (text) => (text ? el("th", { scope: "col" }, text) : el("td"));

function makeLegend(name, index) {
  const swatch = svg("svg", { class: "swatch", viewBox: "0 0 24 8", "aria-hidden": "true" });
  swatch.append(svg("path", { class: `line line-${index}`, d: "M1 4H23" }));
  const cells = [el("td"), el("td"), el("td")];
  return {
    node: el("tr", {}, el("th", { scope: "row" }, swatch, name), ...cells),
    update: (texts) => texts.forEach((text, i) => setText(cells[i], text)),
  };
}

function svg(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// The present value, the least and the most.
function numbersOf(samples, key) {
  const values = samples.map((sample) => sample[key]).filter(isNumber);
  if (values.length === 0) return [null, null, null];
  const [least, most] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  return [samples.at(-1)[key] ?? null, least, most];
}

// The end of the scale: a round number.
function ceiling(samples, plot) {
  const most = Math.max(plot.least, ...plot.series.flatMap(([key]) => numbersOf(samples, key)[2] ?? []));
  if (plot.shown === duration && most > 10) return ROUND_TIMES.find((time) => time >= most) ?? most;
  const unit = plot.shown === bytes ? 1024 ** Math.floor(Math.log(most) / Math.log(1024)) : 1;
  const power = 10 ** Math.floor(Math.log10(most / unit)) * unit;
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= most * 0.999) ?? most;
}

// A line with a gap wherever there is no sample. Peaks are kept: each point is the most of a few
// samples, of the same ones each time, so that the line moves but doesn't change.
function pathOf({ samples, interval }, key, most) {
  const end = samples.at(-1)?.time;
  const width = Math.max(POINT, interval);
  let [path, before] = ["", null];
  for (const { time, value } of pointsOf(samples, key, width)) {
    const x = Math.max(0, SPAN - (end - time)).toFixed(1);
    const y = (HEIGHT - (Math.max(0, value) / most) * (HEIGHT - 2) - 1).toFixed(1);
    const joins = before !== null && time - before < width * 1.5;
    // A point between two gaps is a dot.
    path += joins ? `L${x} ${y}` : `M${x} ${y}h.1`;
    before = time;
  }
  return path;
}

function pointsOf(samples, key, width) {
  const points = [];
  for (const sample of samples) {
    const value = sample[key];
    if (value === undefined) continue;
    const time = Math.floor(sample.time / width) * width;
    const last = points.at(-1);
    if (last?.time === time) last.value = Math.max(last.value, value);
    else points.push({ time, value });
  }
  return points;
}
