// The head of the page: what the gateway is, and six numbers.

import { badge, h, say } from "./dom.js";
import { bits, count, ms, percent, span, whole } from "./format.js";

const RECENT = 10; // rows of the series that a "now" is made of

const TILES = [
  ["requests", "Requests/s"],
  ["hits", "Hit rate"],
  ["out", "To clients"],
  ["first", "First byte p50"],
  ["slow", "First byte p99"],
  ["errors", "Errors (5xx)"],
  ["open", "Connections"],
  ["total", "Requests, in all"],
];

export class Overview {
  constructor(root) {
    this.state = document.getElementById("state");
    this.reload = document.getElementById("reload");
    this.facts = document.getElementById("facts");
    this.tiles = {};
    for (const [name, title] of TILES) {
      const value = h("dd", { id: `tile-${name}` }, "–");
      const note = h("dd", { class: "note" }, "");
      this.tiles[name] = { value, note };
      root.append(h("div", { class: "tile" }, h("dt", {}, title), value, note));
    }
  }

  status(found) {
    badge(this.state, found.readiness, found.ready ? "pill good" : "pill warn");
    const alive = found.workers.filter((each) => each.state === "ready").length;
    say(this.facts, `version ${found.version} · up ${span(found.uptime_s)} · ${alive} of ${found.workers.length} workers · ${found.config.file}`);
    const reload = found.reload;
    const failed = Boolean(reload && reload.at && !reload.ok);
    this.reload.hidden = !failed;
    if (failed) say(this.reload, `The last reload was refused, what ran before runs on: ${reload.problems[0] || ""}`);
    const routes = Object.values(found.requests.routes);
    const total = routes.reduce((sum, each) => sum + each.requests, 0);
    const part = (wanted) => {
      const all = found.requests.protocols.reduce((sum, each) => sum + each.requests, 0);
      const some = found.requests.protocols.filter(wanted).reduce((sum, each) => sum + each.requests, 0);
      return all ? `${Math.round((100 * some) / all)} %` : "–";
    };
    const modern = part((each) => each.protocol === "HTTP/2.0");
    const secure = part((each) => each.tls !== "");
    this.#tile("total", whole(total), `${modern} HTTP/2 · ${secure} TLS`);
    const flying = found.backends.reduce((sum, each) => sum + each.in_flight, 0);
    this.#tile("open", whole(found.requests.connections), `${whole(flying)} at backends`);
  }

  lost(why) {
    badge(this.state, why, "pill bad");
  }

  series(rows) {
    const recent = rows.slice(-RECENT);
    if (!recent.length) return;
    const mean = (name) => recent.reduce((sum, row) => sum + row[name], 0) / recent.length;
    const some = (name) => recent.map((row) => row[name]).filter((each) => each !== null);
    const median = (all) => (all.length ? [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)] : null);
    const requests = mean("requests");
    const eligible = mean("eligible");
    this.#tile("requests", count(requests), `peak ${count(Math.max(...rows.map((row) => row.requests)))}`);
    this.#tile("hits", percent(eligible ? mean("hits") / eligible : null), `bytes ${percent(mean("bytes_out") ? mean("cache_out") / mean("bytes_out") : null)}`);
    this.#tile("out", bits(mean("bytes_out")), `origins ${bits(mean("origin_in"))}`);
    this.#tile("first", ms(median(some("p50_ms"))), `p90 ${ms(median(some("p90_ms")))}`);
    this.#tile("slow", ms(median(some("p99_ms"))), "");
    this.#tile("errors", percent(requests ? mean("server_errors") / requests : null, 2), `4xx ${percent(requests ? mean("client_errors") / requests : null, 1)}`);
  }

  #tile(name, value, note) {
    say(this.tiles[name].value, value);
    say(this.tiles[name].note, note);
  }
}
