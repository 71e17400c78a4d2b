// Region lanes: state, health, the share that routing wants and the traffic that really flows.

import { badge, bar, button, h, say, tone } from "./dom.js";
import { count, percent } from "./format.js";

const RECENT_S = 10;

export class Regions {
  /** `acted(what, state, name)` carries out a change of a region's state. */
  constructor(root, acted) {
    this.acted = acted;
    this.lanes = new Map();
    this.list = h("ul", { class: "lanes" });
    this.none = h("p", { class: "none" }, "No regions.");
    root.append(h("p", { class: "key" }, "Bar: part of all requests to origins, last 10 s. Line: the share that routing wants."), this.list, this.none);
  }

  set(regions, flows) {
    const seen = new Set();
    const total = [...flows.values()].reduce((sum, each) => sum + each, 0);
    for (const region of regions) {
      seen.add(region.name);
      let lane = this.lanes.get(region.name);
      if (lane === undefined) {
        lane = this.#lane(region.name);
        this.lanes.set(region.name, lane);
        this.list.append(lane.node);
      }
      const flow = flows.get(region.name) || 0;
      const part = total > 0 ? flow / total : 0;
      const shares = Object.entries(region.shares);
      const wanted = shares.length ? shares.reduce((sum, [, each]) => sum + each, 0) / shares.length / 100 : 0;
      badge(lane.admin, region.admin, tone(region.admin));
      badge(lane.health, region.health, tone(region.health));
      say(lane.tier, `tier ${region.tier}`);
      bar(lane.bar, part, wanted);
      lane.node.classList.toggle("quiet", region.admin !== "active" || region.health === "unhealthy");
      say(lane.flow, `${count(flow)}/s · ${percent(part, 0)}`);
      const ramps = Object.entries(region.ramping).map(([pool, at]) => `${pool} ramping ${Math.round(at)} %`);
      say(lane.shares, [...shares.map(([pool, each]) => `${pool} ${each} %`), ...ramps].join(" · "));
      say(lane.change, region.change && region.admin !== "active" ? `${region.change.actor}${region.change.reason ? `: ${region.change.reason}` : ""}` : "");
      lane.drain.hidden = region.admin !== "active";
      lane.stop.hidden = region.admin === "inactive";
      lane.activate.hidden = region.admin === "active";
    }
    for (const [name, lane] of this.lanes) {
      if (seen.has(name)) continue;
      lane.node.remove();
      this.lanes.delete(name);
    }
    this.none.hidden = regions.length > 0;
  }

  #lane(name) {
    const lane = {
      admin: h("span"),
      health: h("span"),
      tier: h("span", { class: "dim" }),
      bar: h("div", { class: "share", "aria-hidden": "true" }),
      flow: h("span", { class: "flow" }),
      shares: h("span", { class: "dim" }),
      change: h("span", { class: "dim" }),
      drain: button("Drain", () => this.acted("region", "draining", name)),
      stop: button("Deactivate", () => this.acted("region", "inactive", name)),
      activate: button("Activate", () => this.acted("region", "active", name), "main"),
    };
    for (const each of [lane.drain, lane.stop, lane.activate]) each.setAttribute("aria-label", `${each.textContent} region ${name}`);
    lane.node = h("li", { class: "lane", "data-region": name },
      h("div", { class: "who" }, h("strong", {}, name), lane.admin, lane.health, lane.tier),
      lane.bar, lane.flow,
      h("div", { class: "more" }, lane.shares, lane.change),
      h("div", { class: "acts" }, lane.drain, lane.stop, lane.activate));
    return lane;
  }
}

/** Requests a second to each region, over the last rows of a step. */
export function flows(regions, step) {
  return new Map(Object.entries(regions).map(([name, all]) => {
    const recent = all.slice(-RECENT_S / step);
    return [name, recent.length ? recent.reduce((sum, each) => sum + each, 0) / recent.length : 0];
  }));
}
