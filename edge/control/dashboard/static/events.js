// What happens, as it happens: the newest on top.

import { button, h, say, tone } from "./dom.js";
import { clock } from "./format.js";

const SHOWN = 200;
const BAD = /unhealthy|died|failed|bug|corrupt|ejected|lost|unusable|refused/;
const GOOD = /healthy|ready|taken|verified|returned|active/;
const HIDDEN = new Set(["id", "time", "kind"]);

/** How an event looks: where it says what a state was and is, by what it is. */
function look(event, all) {
  if (event.is !== undefined) return tone(event.is);
  return BAD.test(all) ? "bad" : GOOD.test(all) ? "good" : "plain";
}

export class Events {
  constructor(root) {
    this.list = h("ol", { class: "events", role: "log", "aria-live": "off", tabindex: "0", "aria-label": "Events, the newest first" });
    this.state = h("span", { class: "dim" }, "not connected");
    const only = h("input", { type: "search", placeholder: "filter, as in region", "aria-label": "Show events that contain" });
    only.addEventListener("input", () => this.#filter(only.value.trim().toLowerCase()));
    const aloud = button("Read aloud: off", async () => {
      const on = this.list.getAttribute("aria-live") === "off";
      this.list.setAttribute("aria-live", on ? "polite" : "off");
      aloud.setAttribute("aria-pressed", String(on));
      say(aloud, `Read aloud: ${on ? "on" : "off"}`);
    });
    root.append(h("div", { class: "row" }, only, aloud, this.state), this.list);
    this.only = "";
  }

  connected(on) {
    say(this.state, on ? "live" : "connecting");
  }

  add(event) {
    const facts = Object.entries(event).filter(([name, value]) => !HIDDEN.has(name) && value !== null && value !== "");
    const text = facts.map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
    const all = `${event.kind} ${text}`;
    const node = h("li", { class: look(event, all), "data-kind": event.kind },
      h("time", { datetime: event.time }, clock(event.time)), h("strong", {}, event.kind), h("span", { class: "text" }, text));
    node.hidden = !all.toLowerCase().includes(this.only);
    this.list.prepend(node);
    while (this.list.childElementCount > SHOWN) this.list.lastElementChild.remove();
  }

  clear() {
    this.list.replaceChildren();
  }

  #filter(word) {
    this.only = word;
    for (const node of this.list.children) node.hidden = !node.textContent.toLowerCase().includes(word);
  }
}
