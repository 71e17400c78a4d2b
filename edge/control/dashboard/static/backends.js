// Every backend: what it is wanted to be, what probes and traffic say of it, and what is in flight there.

import { Table, badge, bar, button, h, say, tone } from "./dom.js";
import { count, ms, whole } from "./format.js";

export class Backends {
  constructor(root, acted) {
    this.before = new Map();
    this.rates = new Map();
    this.table = new Table("Backends by pool", [
      { title: "Backend", text: (row) => row.id },
      {
        title: "State", // before what a phone has no room for
        make: () => h("span", {}, h("span"), " ", h("span"), " ", h("span")),
        set: (node, row) => {
          badge(node.children[0], row.admin, tone(row.admin));
          badge(node.children[1], row.health, tone(row.health));
          badge(node.children[2], row.ejected ? `ejected by ${row.ejected}` : "", row.ejected ? "warn" : "gone");
          node.title = row.evidence || "";
        },
      },
      { title: "Pool", text: (row) => row.pool },
      { title: "Region", text: (row) => row.region },
      {
        title: "In flight",
        make: () => h("span", { class: "load" }, h("span", { class: "meter", "aria-hidden": "true" }), h("span")),
        set: (node, row) => {
          bar(node.children[0], row.max_in_flight ? row.in_flight / row.max_in_flight : 0);
          say(node.children[1], row.max_in_flight ? `${whole(row.in_flight)} of ${whole(row.max_in_flight)}` : whole(row.in_flight));
        },
      },
      { title: "Requests/s", num: true, text: (row) => count(this.rates.get(nameOf(row)) ?? null) },
      { title: "Requests", num: true, text: (row) => whole(row.attempts) },
      { title: "5xx", num: true, text: (row) => whole(row.status["5xx"] || 0) },
      { title: "Errors", num: true, text: (row) => whole(Object.values(row.errors).reduce((sum, each) => sum + each, 0)) },
      { title: "Head p50", num: true, text: (row) => ms(row.p50_ms) },
      { title: "p99", num: true, text: (row) => ms(row.p99_ms) },
      { title: "Probe", num: true, text: (row) => ms(row.probe_ms) },
      {
        title: "Change",
        make: (row) => {
          const acts = ["draining", "inactive", "active"].map((state, at) => {
            const made = button(["Drain", "Deactivate", "Activate"][at], () => acted("backend", state, row.id, row.pool));
            made.setAttribute("aria-label", `${made.textContent} backend ${row.id}`);
            return made;
          });
          return h("span", { class: "acts" }, ...acts);
        },
        set: (node, row) => {
          node.children[0].hidden = row.admin !== "active";
          node.children[1].hidden = row.admin === "inactive";
          node.children[2].hidden = row.admin === "active";
        },
      },
    ], "No backends.");
    root.append(this.table.whole);
  }

  set(backends, seconds) {
    for (const row of backends) {
      const name = nameOf(row);
      const before = this.before.get(name);
      if (before !== undefined && seconds > 0) this.rates.set(name, Math.max(0, row.attempts - before) / seconds);
      this.before.set(name, row.attempts);
    }
    this.table.set(backends, nameOf);
  }
}

function nameOf(row) {
  return `${row.pool}/${row.id}`;
}
