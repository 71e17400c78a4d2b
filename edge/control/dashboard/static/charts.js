// Four charts over one time axis, drawn by uPlot from the rows of /v1/series; colours come from the style sheet.

import uPlot from "./vendor/uPlot.js";
import { bits, count, ms, percent } from "./format.js";
import { h, say } from "./dom.js";

const HEIGHT = 180;
const SPANS = { 1: 600, 10: 7200 };

const CHARTS = [
  {
    title: "Requests per second",
    value: (found) => `${count(found)}/s`,
    lines: [
      { name: "all", colour: "--c1", fill: true, of: (row) => row.requests },
      { name: "from the store", colour: "--c2", of: (row) => row.hits },
      { name: "5xx", colour: "--c4", of: (row) => row.server_errors },
    ],
  },
  {
    title: "Hit rate",
    value: (found) => percent(found, 0),
    range: [0, 1],
    lines: [
      { name: "by request", colour: "--c2", fill: true, of: (row) => (row.eligible ? row.hits / row.eligible : null) },
      { name: "by byte", colour: "--c3", of: (row) => (row.bytes_out ? row.cache_out / row.bytes_out : null) },
    ],
  },
  {
    title: "Bandwidth",
    value: bits,
    lines: [
      { name: "to clients", colour: "--c1", fill: true, of: (row) => row.bytes_out },
      { name: "from origins", colour: "--c5", of: (row) => row.origin_in },
    ],
  },
  {
    title: "Time to first byte",
    value: ms,
    lines: [
      { name: "p50", colour: "--c2", of: (row) => row.p50_ms },
      { name: "p90", colour: "--c3", of: (row) => row.p90_ms },
      { name: "p99", colour: "--c4", of: (row) => row.p99_ms },
    ],
  },
];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function options(chart, width, span) {
  const ink = colour("--dim");
  const grid = { stroke: colour("--line"), width: 1 };
  const font = "11px system-ui, sans-serif";
  return {
    width,
    height: HEIGHT,
    padding: [8, 8, 0, 0],
    cursor: { sync: { key: "time" }, points: { size: 6 }, drag: { x: false, y: false } },
    legend: { show: false },
    scales: { x: { time: true, range: (_, low, high) => [high - span, high] }, y: { range: chart.range || ((_, low, high) => [0, high > 0 ? high * 1.1 : 1]) } },
    axes: [
      { stroke: ink, grid, ticks: grid, font, values: (_, all) => all.map((at) => new Date(at * 1000).toLocaleTimeString("en-GB").slice(0, 5)), space: 60, size: 28 },
      { stroke: ink, grid, ticks: grid, font, size: 82, values: (_, all) => all.map((each) => chart.value(each)), space: 34 },
    ],
    series: [
      {},
      ...chart.lines.map((line) => ({
        label: line.name,
        stroke: colour(line.colour),
        fill: line.fill ? `${colour(line.colour)}22` : undefined,
        width: 1.6,
        points: { show: false },
        spanGaps: false,
      })),
    ],
  };
}

/** All charts below `root`. */
export class Charts {
  constructor(root) {
    this.rows = [];
    this.step = 1;
    this.drawn = CHARTS.map((chart) => {
      const legend = chart.lines.map((line) => {
        const value = h("output", { class: "value" }, "–");
        return { value, node: h("span", { class: "entry" }, h("span", { class: `swatch ${line.colour.slice(2)}` }), `${line.name} `, value) };
      });
      const plot = h("div", { class: "plot", role: "img", "aria-label": chart.title });
      root.append(h("figure", { class: "panel chart" },
        h("figcaption", {}, h("strong", {}, chart.title), h("span", { class: "legend" }, ...legend.map((each) => each.node))), plot));
      return { chart, plot, legend, u: null };
    });
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(root);
  }

  /** Rows of a step from the API: all of them, or those that are new. */
  take(found, anew) {
    const rows = found.rows.map((row) => Object.fromEntries(found.columns.map((name, at) => [name, row[at]])));
    if (this.step !== found.step_s) {
      this.step = found.step_s;
      this.restyle();
    }
    this.rows = anew ? rows : [...this.rows, ...rows];
    if (this.rows.length > SPANS[this.step] / this.step) this.rows = this.rows.slice(-SPANS[this.step] / this.step);
    this.draw();
  }

  get last() {
    return this.rows.length ? this.rows[this.rows.length - 1].time : 0;
  }

  draw() {
    const times = this.rows.map((row) => row.time);
    for (const each of this.drawn) {
      const data = [times, ...each.chart.lines.map((line) => this.rows.map(line.of))];
      if (each.u === null) this.#make(each, data);
      else each.u.setData(data);
      const last = this.rows[this.rows.length - 1];
      const said = each.chart.lines.map((line, at) => {
        const text = last ? each.chart.value(line.of(last)) : "–";
        say(each.legend[at].value, text);
        return `${line.name} ${text}`;
      });
      each.plot.setAttribute("aria-label", `${each.chart.title}, now: ${said.join(", ")}`);
    }
  }

  resize() {
    for (const each of this.drawn) {
      const width = each.plot.clientWidth;
      if (each.u !== null && width > 0 && Math.abs(each.u.width - width) > 1) each.u.setSize({ width, height: HEIGHT });
    }
  }

  /** Colours have changed. */
  restyle() {
    for (const each of this.drawn) {
      if (each.u === null) continue;
      const data = each.u.data;
      each.u.destroy();
      this.#make(each, data);
    }
  }

  #make(each, data) {
    each.u = new uPlot(options(each.chart, each.plot.clientWidth || 300, SPANS[this.step]), data, each.plot);
    for (const canvas of each.plot.querySelectorAll("canvas")) canvas.setAttribute("aria-hidden", "true");
  }
}
