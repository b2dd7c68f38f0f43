// Elements without strings of HTML: what people and models wrote is text, always.

export function el(tag, attributes = {}, ...children) {
  const made = tag === "svg" || SVG.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

const SVG = new Set(["g", "rect", "line", "text", "title", "path"]);

export function card(width, heading, ...children) {
  return el("section", { class: `card ${width}` }, el("header", {}, el("h2", {}, heading)), ...children);
}

// columns: [heading, cell(row), "n" for numbers]
export function table(rows, columns, empty = "Nothing yet.") {
  if (!rows.length) return el("p", { class: "empty" }, empty);
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...columns.map(([name, , kind]) => el("th", { class: kind, scope: "col" }, name)))),
    el("tbody", {}, ...rows.map((row) =>
      el("tr", {}, ...columns.map(([, cell, kind]) => el("td", { class: kind }, filled(cell(row))))))),
  ));
}

// A name of nothing but blanks is one, too.
const filled = (shown) => (typeof shown === "string" && shown && !shown.trim() ? "(blank)" : shown ?? "");

export function choice(name, options, chosen, change) {
  return el("fieldset", { class: "choice" }, el("legend", { hidden: true }, name),
    ...options.flatMap(([value, label]) => {
      const id = `${name}-${value}`;
      return [
        el("input", { type: "radio", name, id, value, checked: value === chosen, onchange: () => change(value) }),
        el("label", { for: id }, label),
      ];
    }));
}
