// Recovery points: how much could be lost now, how long a return would take, and the points themselves.

import { Table, badge, button, h, say, tone } from "./dom.js";
import { ago, bytes, moment, span } from "./format.js";

export class Recovery {
  /** `acts`: { take(kind, told), verify(id, told), drill(id, told), hold(id), release(id) }. */
  constructor(root, acts) {
    this.off = h("p", { class: "none" }, "No recovery points are taken: the configuration has no [snapshots].");
    this.numbers = h("dl", { class: "short wide" });
    this.values = {};
    for (const [name, title] of [["rpo", "Could be lost now (RPO)"], ["rto", "Return took (RTO)"], ["age", "Newest point"], ["verified", "Verified"], ["drilled", "Drilled"], ["running", "Running"]]) {
      this.values[name] = h("dd", { id: `recovery-${name}` }, "–");
      this.numbers.append(h("div", {}, h("dt", {}, title), this.values[name]));
    }
    this.alerts = h("ul", { class: "alerts", role: "status" });
    const kind = h("select", { id: "snapshot-kind" }, ...["full", "differential", "incremental"].map((each) => h("option", { value: each }, each)));
    this.step = h("p", { class: "dim", role: "status", id: "snapshot-step" });
    const take = button("Take a snapshot", () => acts.take(kind.value, (step) => this.#told(step)), "main");
    take.id = "snapshot-take";
    this.form = h("div", { class: "row" }, h("label", { class: "choice" }, "Kind ", kind), take, this.step);
    this.table = new Table("Recovery points, the newest first", [
      { title: "Point", text: (row) => row.id },
      { title: "Kind", text: (row) => row.kind },
      { title: "Taken", text: (row) => moment(row.taken_at) },
      { title: "Status", make: () => h("span"), set: (node, row) => badge(node, row.corrupt ? "corrupt" : row.status, row.corrupt ? "bad" : tone(row.status)) },
      { title: "Bytes", num: true, text: (row) => bytes(row.bytes) },
      { title: "Needs", num: true, text: (row) => row.needs.length || "–" },
      { title: "Verified", text: (row) => (row.verified_at ? ago(row.verified_at) : "never") },
      { title: "Drilled", text: (row) => (row.drilled_at ? ago(row.drilled_at) : "never") },
      {
        title: "Work",
        make: (row) => h("span", { class: "acts" },
          button("Verify", () => acts.verify(row.id, (step) => this.#told(step))),
          button("Drill", () => acts.drill(row.id, (step) => this.#told(step))),
          button("Hold", () => acts.hold(row.id)),
          button("Release", () => acts.release(row.id))),
        set: (node, row) => {
          node.children[2].hidden = Boolean(row.hold);
          node.children[3].hidden = !row.hold;
        },
      },
    ], "No points yet.");
    this.all = h("div", {}, this.numbers, this.alerts, this.form, this.table.whole);
    root.append(this.off, this.all);
    this.status(null);
  }

  status(found) {
    this.off.hidden = found !== null;
    this.all.hidden = found === null;
    const report = found && found.report;
    if (!report) return;
    this.#met("rpo", report.rpo);
    this.#met("rto", report.rto);
    say(this.values.age, report.age_s === null ? "none" : `${span(report.age_s)} ago, of ${report.points}`);
    say(this.values.verified, report.verified_age_s === null ? "never" : `${span(report.verified_age_s)} ago`);
    say(this.values.drilled, report.drilled_age_s === null ? "never" : `${span(report.drilled_age_s)} ago`);
    say(this.values.running, found.running ? String(found.running.what || found.running) : "nothing");
    const alerts = [...report.alerts.map((each) => (typeof each === "string" ? each : each.detail || JSON.stringify(each))), ...(found.last_error ? [found.last_error] : [])];
    if (this.alerts.textContent !== alerts.join("")) this.alerts.replaceChildren(...alerts.map((each) => h("li", {}, each)));
  }

  points(found) {
    this.table.set(found.points, (row) => row.id);
  }

  #met(name, target) {
    const node = this.values[name];
    const met = target.achieved_s === null || target.target_s === null || target.achieved_s <= target.target_s;
    say(node, `${target.achieved_s === null ? "not known yet" : span(target.achieved_s)}, target ${span(target.target_s)}`);
    node.className = met ? "met" : "missed";
  }

  #told(step) {
    say(this.step, step.finished ? "done" : [step.step || step.what || step.state, step.done !== undefined && step.total ? `${step.done} of ${step.total}` : ""].filter(Boolean).join(" ") || "working");
  }
}
