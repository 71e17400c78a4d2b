// Elements from values. One rule: whatever comes from outside becomes a text node, never markup.

/** An element. `props`: attributes; `class`, `on…` listeners and properties of the same name work as expected. */
export function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Change a text only where it differs: a selection and a screen reader are left in peace. */
export function say(node, text) {
  const value = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== value) node.textContent = value;
}

/** A word in a colour that means something; the word says it without the colour. */
export function badge(node, word, tone) {
  say(node, word);
  const wanted = `badge ${tone}`;
  if (node.className !== wanted) node.className = wanted;
}

/** How a health or administrative word looks. */
export function tone(word) {
  if (["healthy", "active", "ready", "complete", "ok", "verified"].includes(word)) return "good";
  if (["unhealthy", "inactive", "corrupt", "failed", "error"].includes(word)) return "bad";
  if (["draining", "degraded", "ejected", "stale", "starting", "stopping"].includes(word)) return "warn";
  return "plain";
}

/** A bar of a part (0 to 1), for people who read numbers beside it. */
export function bar(node, part, mark) {
  const width = `${Math.max(0, Math.min(1, part || 0)) * 100}%`;
  if (node.firstElementChild === null) node.append(h("span", { class: "fill" }));
  const fill = node.firstElementChild;
  if (fill.style.width !== width) fill.style.width = width;
  if (mark === undefined) return;
  if (node.children.length < 2) node.append(h("span", { class: "mark" }));
  node.children[1].style.left = `${Math.max(0, Math.min(1, mark)) * 100}%`;
}

/**
 * A table whose rows are kept by key, so that focus and selection stay where they are.
 * columns: { title, num, make(row) → node, set(node, row) } or { title, text(row) }.
 */
export class Table {
  constructor(caption, columns, empty) {
    this.columns = columns;
    this.rows = new Map();
    this.body = h("tbody");
    this.none = h("p", { class: "none" }, empty);
    const heads = columns.map((each) => h("th", { scope: "col", class: each.num ? "num" : null }, each.title));
    const table = h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...heads)), this.body);
    this.node = h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption }, table);
    this.whole = h("div", {}, this.node, this.none); // what is put into the page
  }

  set(list, key) {
    const left = new Set(this.rows.keys());
    let place = this.body.firstElementChild;
    for (const row of list) {
      const name = key(row);
      left.delete(name);
      let line = this.rows.get(name);
      if (line === undefined) {
        line = this.#line(row);
        this.rows.set(name, line);
      }
      if (line.node === place) place = place.nextElementSibling;
      else this.body.insertBefore(line.node, place);
      this.columns.forEach((column, at) => {
        if (column.set) column.set(line.cells[at], row);
        else say(line.cells[at], column.text(row));
      });
    }
    for (const name of left) {
      this.rows.get(name).node.remove();
      this.rows.delete(name);
    }
    this.node.hidden = list.length === 0;
    this.none.hidden = list.length !== 0;
  }

  #line(row) {
    const cells = [];
    const node = h("tr");
    this.columns.forEach((column, at) => {
      const inner = column.make ? column.make(row) : h("span");
      cells.push(inner);
      node.append(h(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: column.num ? "num" : null }, inner));
    });
    return { node, cells };
  }
}

/** A button that cannot be pressed twice while its work runs. */
export function button(text, work, kind = "") {
  const made = h("button", { type: "button", class: kind }, text);
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await work();
    } finally {
      made.disabled = false;
    }
  });
  return made;
}

/** A labelled control. */
export function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", { class: "name" }, label), control, hint ? h("span", { class: "hint" }, hint) : null);
}
