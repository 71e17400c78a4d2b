// What would become of a request, step by step, as the gateway itself decides it; nothing is sent to a backend.

import { badge, button, field, h, tone } from "./dom.js";
import { bytes, percent, span } from "./format.js";

export class Explain {
  constructor(root, asked) {
    const url = h("input", { type: "url", id: "explain-url", required: true, placeholder: "https://www.example.com/page?x=1", autocomplete: "off" });
    const method = h("select", { id: "explain-method" }, ...["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map((each) => h("option", {}, each)));
    const client = h("input", { id: "explain-client", placeholder: "203.0.113.7", autocomplete: "off" });
    const headers = h("textarea", { id: "explain-headers", rows: "2", placeholder: "Accept-Language: de" });
    this.steps = h("ol", { class: "steps", id: "explain-steps" });
    this.trouble = h("p", { class: "trouble", role: "alert", hidden: true });
    const go = h("button", { type: "submit", class: "main" }, "Explain");
    const form = h("form", { class: "form" }, field("URL", url), field("Method", method), field("Client address", client, "for regions by place"), field("Headers", headers, "one a line"), go);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      go.disabled = true;
      this.trouble.hidden = true;
      try {
        const query = new URLSearchParams({ url: url.value.trim(), method: method.value });
        if (client.value.trim()) query.set("client", client.value.trim());
        for (const line of headers.value.split("\n")) if (line.trim()) query.append("header", line.trim());
        this.show(await asked(query));
      } catch (error) {
        this.steps.replaceChildren();
        this.trouble.textContent = error.message;
        this.trouble.hidden = false;
      } finally {
        go.disabled = false;
      }
    });
    root.append(form, this.trouble, this.steps);
  }

  show(found) {
    const steps = [];
    const add = (title, word, look, ...rest) => {
      const mark = h("span");
      badge(mark, word, look);
      steps.push(h("li", {}, h("div", { class: "what" }, h("strong", {}, title), mark), ...rest));
    };
    if (!found.route) {
      add("Route", `refused: ${found.status}`, "bad", note(found.reason));
      this.steps.replaceChildren(...steps);
      return;
    }
    const route = found.route;
    add("Route", route.name, "plain", note(`host ${route.host}, path ${route.path} → pool ${route.pool}${route.require.length ? `, only in ${route.require.join(", ")}` : ""}${route.prefer.length ? `, rather in ${route.prefer.join(", ")}` : ""}`));
    const rules = found.rules || [];
    const own = rules.find(answers);
    if (rules.length) {
      add("Rules of the route", own ? `ends with ${own.rule}` : `${rules.length} to go through`, own ? "warn" : "plain",
        h("ol", { class: "inner" }, ...rules.map((each) => h("li", {}, h("strong", {}, each.rule), ` ${each.does}`))));
    }
    if (own) {
      add("So", own.does, "warn", note("Neither the store nor a backend is asked."));
      this.steps.replaceChildren(...steps);
      return;
    }
    if (found.place) {
      const place = found.place;
      add("Client's place", place.unknown ? "not known" : place.country || "–", place.unknown ? "warn" : "plain",
        note(place.unknown ? place.unknown : [place.continent, place.country, place.subdivision, place.location && place.location.join(", ")].filter(Boolean).join(" · ")),
        note(`found by ${place.found_by}: ${place.order.join(" → ") || "no order"}`));
    }
    const cache = found.cache;
    add("Cache", cache.verdict, { hit: "good", stale: "warn", error: "bad" }[cache.verdict] || "plain",
      note(`reason: ${cache.reason}`), cache.key ? note(`key: ${cache.key}`, "code") : null,
      cache.stored ? note(`stored: status ${cache.stored.status}, ${bytes(cache.stored.bytes)}, age ${span(cache.stored.age_s)}, fresh for ${span(Math.max(0, cache.stored.ttl_s))} more${cache.stored.tags.length ? `, tags ${cache.stored.tags.join(" ")}` : ""}`) : null);
    const answered = cache.verdict === "hit";
    add("Regions, in the order of trying", found.regions[0] ? found.regions[0].region : "none", found.regions.length ? "plain" : "bad",
      h("ol", { class: "inner" }, ...found.regions.map((each) => h("li", {}, h("strong", {}, each.region), ` ${each.share === undefined ? "" : `${percent(each.share / 100, 0)} · `}${each.reason}`))));
    const order = found.regions.map((each) => each.region);
    const rows = [...found.backends].sort((a, b) => order.indexOf(a.region) - order.indexOf(b.region) || Number(b.available) - Number(a.available) || (a.score ?? 0) - (b.score ?? 0));
    const usable = rows.filter((each) => each.available);
    add("Backends, best first", `${usable.length} of ${rows.length} available`, usable.length ? "good" : "bad",
      h("ol", { class: "inner" }, ...rows.map((each) => {
        const mark = h("span");
        badge(mark, each.why, each.available ? tone(each.why) : "bad");
        return h("li", {}, h("strong", {}, each.backend), ` ${each.region} · ${each.policy}${each.score === null ? "" : ` ${each.score}`} · ${each.in_flight} in flight `, mark);
      })));
    if (found.hash) add("Hash", found.hash.on, "plain", note(found.hash.home));
    add("So", answered ? "answered from the store" : usable.length ? "goes to a backend" : "503", answered || usable.length ? "good" : "bad",
      note(answered ? "No backend is asked." : usable.length ? `Most likely ${usable[0].backend} in ${usable[0].region}.` : "No backend can take it."));
    this.steps.replaceChildren(...steps);
  }
}

/** Whether a rule answers by itself. */
function answers(row) {
  if (row.rule === "respond") return true;
  if (row.rule === "redirect") return /^3\d\d to /.test(row.does);
  return /^40[13]\b|\(40[13]\)/.test(row.does);
}

function note(text, kind = "") {
  return h("p", { class: `note ${kind}` }, text);
}
