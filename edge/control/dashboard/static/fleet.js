// Machines that serve together: who is in step with the purge stream, and where they say different things.

import { Table, badge, h, say } from "./dom.js";

const NUMBER = (value, digits = 0) => (value === null ? "–" : value.toFixed(digits));

export class Fleet {
  constructor(root) {
    this.root = root;
    this.standing = h("p", { id: "fleet-standing", role: "status" });
    this.notes = h("ul", { class: "alerts", id: "fleet-notes" });
    this.table = new Table("Machines", [
      { title: "Machine", text: (row) => (row.self ? `${row.name} (here)` : row.name) },
      { title: "State", make: () => h("span"), set: (node, row) => badge(node, row.state, row.state === "in step" ? "good" : "warn") },
      { title: "Purge", num: true, text: (row) => NUMBER(row.position) },
      { title: "Lag", num: true, text: (row) => NUMBER(row.lag) },
      { title: "Changes", num: true, text: (row) => NUMBER(row.states) },
      { title: "Heard, s", num: true, text: (row) => NUMBER(row.heard_s, 1) },
      { title: "Clock, s", num: true, text: (row) => NUMBER(row.clock_offset_s, 3) },
      { title: "Version", text: (row) => row.version },
      { title: "Region", text: (row) => row.region || "–" },
      { title: "Workers", num: true, text: (row) => NUMBER(row.workers) },
      { title: "Requests/s", num: true, text: (row) => NUMBER(row.requests_per_second, 1) },
    ], "No machine was heard of yet.");
    root.append(this.standing, this.notes, this.table.whole);
    this.set(null);
  }

  /** What /v1/fleet says; null: there is no fleet. */
  set(found) {
    this.root.hidden = found === null;
    if (found === null) return;
    const step = found.in_step ? `in step at purge ${found.position}` : `not in step (${found.trouble || "joining"}); ${found.blind ? "everything stored is validated before use" : "what is stored is used still"}`;
    say(this.standing, `${found.name}: ${step}`);
    this.table.set(found.machines, (row) => row.id);
    const notes = (found.disputes || []).map((each) => `Backend ${each.backend} of ${each.pool}: ${each.up} of ${each.up + each.down} machines reach it; believed here: ${each.believed}`);
    if (found.states && found.states.owed) notes.push(`${found.states.owed} changes made here are not on the others yet`);
    if (!found.sure) notes.push("The stream is young: a machine that has not come back to it is not in this list");
    if (this.notes.textContent !== notes.join("")) this.notes.replaceChildren(...notes.map((each) => h("li", {}, each)));
  }
}
