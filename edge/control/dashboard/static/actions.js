// What changes something: every change is asked back once, with a reason for the audit.

import { field, h, say } from "./dom.js";
import { whole } from "./format.js";

/** A modal form; the values, or null when it was left. `fields`: [{ name, label, type, hint, required }]. */
export function ask(title, text, fields, verb, danger = false) {
  return new Promise((done) => {
    const controls = fields.map((each) => h("input", { name: each.name, type: each.type || "text", required: each.required, autocomplete: "off", maxlength: "500", spellcheck: "false" }));
    const go = h("button", { type: "submit", class: danger ? "danger" : "main" }, verb);
    const leave = h("button", { type: "button" }, "Cancel");
    const form = h("form", { class: "form" },
      h("h2", { id: "ask-title" }, title), h("p", {}, text),
      ...fields.map((each, at) => (each.type === "checkbox" ? h("label", { class: "choice" }, controls[at], ` ${each.label}`) : field(each.label, controls[at], each.hint))),
      h("div", { class: "row end" }, leave, go));
    const dialog = h("dialog", { "aria-labelledby": "ask-title" }, form);
    let values = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      values = Object.fromEntries(controls.map((each) => [each.name, each.type === "checkbox" ? each.checked : each.value]));
      dialog.close();
    });
    leave.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(values);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const VERBS = { draining: "Drain", inactive: "Deactivate", active: "Activate" };
const MEANS = {
  draining: "New requests go elsewhere; what runs there ends there.",
  inactive: "Nothing goes there at all.",
  active: "It takes its share again.",
};

/** Reason, expiry and force for a change of state; null when it was left. */
export async function askChange(what, state, name) {
  const fields = [{ name: "reason", label: "Reason", hint: "for the audit" }];
  if (state !== "active") fields.push({ name: "expires", label: "For how long", hint: "as in 30m; empty: until changed" }, { name: "force", label: "even when nobody else is left", type: "checkbox" });
  const given = await ask(`${VERBS[state]} ${what} ${name}`, MEANS[state], fields, VERBS[state], state === "inactive");
  if (given === null) return null;
  const body = { state, reason: given.reason };
  if (given.expires) body.expires = given.expires;
  if (given.force) body.force = true;
  return body;
}

const PURGES = {
  url: ["URLs", "https://www.example.com/page"],
  tag: ["Tags", "product-17"],
  prefix: ["Prefixes", "www.example.com/images"],
  host: ["Hosts", "www.example.com"],
  all: ["Everything", ""],
};

/** The purge form. `purge(body)` gives the API's answer. */
export function purgeForm(root, purge) {
  const kind = h("select", { id: "purge-kind" }, ...Object.entries(PURGES).map(([name, [title]]) => h("option", { value: name }, title)));
  const values = h("textarea", { id: "purge-values", rows: "4", spellcheck: "false", placeholder: PURGES.url[1] });
  const soft = h("input", { type: "checkbox", id: "purge-soft" });
  const reason = h("input", { id: "purge-reason", maxlength: "500", autocomplete: "off" });
  const result = h("p", { class: "result", role: "status", id: "purge-result" });
  const list = field("One a line", values);
  kind.addEventListener("change", () => {
    values.placeholder = PURGES[kind.value][1];
    list.hidden = kind.value === "all";
  });
  const go = h("button", { type: "submit", class: "danger" }, "Purge");
  const form = h("form", { class: "form" }, field("What", kind), list, h("label", { class: "choice" }, soft, " soft: mark as stale, keep for errors"), field("Reason", reason, "for the audit"), go);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const lines = values.value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (kind.value !== "all" && !lines.length) {
      say(result, "Give at least one.");
      return;
    }
    if (kind.value === "all" && (await ask("Purge everything", "Every stored response, in every worker and tier.", [], "Purge everything", true)) === null) return;
    const items = kind.value === "all" ? [{ all: true }] : lines.map((line) => ({ [kind.value]: line }));
    go.disabled = true;
    try {
      const found = await purge({ items, soft: soft.checked, reason: reason.value });
      const known = found.purges.filter((each) => each.count !== null);
      const many = known.length ? `, ${whole(known.reduce((sum, each) => sum + each.count, 0))} stored responses` : "";
      say(result, `${found.purges.length} done${many}; the last one is number ${found.purges[found.purges.length - 1].id}.`);
      result.className = "result good";
    } catch (error) {
      say(result, error.message);
      result.className = "result bad";
    } finally {
      go.disabled = false;
    }
  });
  root.append(form, result);
}

