// What the stores hold, how routes use them, and what is asked for most.

import { Table, bar, h, say } from "./dom.js";
import { bits, bytes, count, percent, whole } from "./format.js";

export class Cache {
  constructor(root) {
    this.tiers = h("div", { class: "tiers" });
    this.cards = new Map();
    this.routes = new Table("Routes, last 5 minutes", [
      { title: "Route", text: (row) => row.name },
      { title: "Requests", num: true, text: (row) => whole(row.requests) },
      { title: "Hit rate", num: true, text: (row) => percent(row.hit_rate) },
      { title: "By byte", num: true, text: (row) => percent(row.byte_hit_rate) },
      { title: "Offload", num: true, text: (row) => percent(row.offload) },
      { title: "To clients", num: true, text: (row) => bits(row.client_out_per_s) },
      { title: "From origins", num: true, text: (row) => bits(row.origin_in_per_s) },
      { title: "Most frequent reasons", text: (row) => row.why },
    ], "No route has been asked for yet.");
    this.top = new Table("Most requested, last minutes", [
      { title: "URL", text: (row) => row.url },
      { title: "Route", text: (row) => row.route },
      { title: "Requests/s", num: true, text: (row) => count(row.requests_per_s) },
      { title: "Share", num: true, text: (row) => percent(row.share) },
      { title: "From the store", num: true, text: (row) => percent(row.hit_rate) },
      { title: "Bytes/s", num: true, text: (row) => `${bytes(row.bytes_per_s)}` },
    ], "Nothing has been asked for lately, or the access log, from which this is sampled, is off.");
    root.append(this.tiers, h("div", { class: "pair" }, this.top.whole, h("div", { class: "routes" }, this.routes.whole)));
  }

  set(found) {
    const store = found.store;
    this.#tier("memory", "Memory", store.bytes, store.budget_bytes, [
      ["objects", whole(store.objects)],
      ["variants' keys", whole(store.keys)],
      ["hits from here", whole(found.total.lifetime.hits - (store.disk_hits || 0))],
      ["fetches shared now", whole(store.flights)],
    ]);
    if (found.disk) {
      this.#tier("disk", "Disk", found.disk.bytes, found.disk.budget_bytes, [
        ["objects", whole(found.disk.objects)],
        ["hits from here", `${whole(found.disk.hits)} (${percent(found.disk.hit_share)})`],
        ["evicted", whole(found.disk.evicted)],
        ["damaged", whole(found.disk.damaged)],
        ["written late by", `${count(found.disk.lag_ms)} ms`],
      ]);
    }
    const rows = Object.entries(found.routes).map(([name, each]) => ({
      name,
      ...each["5m"],
      why: Object.entries(each.reasons).sort((a, b) => b[1] - a[1]).slice(0, 3).map(([word, many]) => `${word} ${count(many)}`).join(", "),
    }));
    this.routes.set(rows.sort((a, b) => b.requests - a.requests), (row) => row.name);
  }

  hottest(found) {
    this.top.set(found.objects, (row) => `${row.route} ${row.url}`);
  }

  #tier(name, title, used, budget, facts) {
    let card = this.cards.get(name);
    if (card === undefined) {
      card = { meter: h("div", { class: "meter large", "aria-hidden": "true" }), text: h("p", { class: "used" }), facts: facts.map(([label]) => h("dd")) };
      const list = h("dl", { class: "short" });
      facts.forEach(([label], at) => list.append(h("div", {}, h("dt", {}, label), card.facts[at])));
      this.tiers.append(h("div", { class: "tier", "data-tier": name }, h("h3", {}, title), card.meter, card.text, list));
      this.cards.set(name, card);
    }
    bar(card.meter, budget ? used / budget : 0);
    say(card.text, `${bytes(used || 0)} of ${bytes(budget || 0)} (${percent(budget ? used / budget : null)})`);
    facts.forEach(([, value], at) => say(card.facts[at], value));
  }
}
