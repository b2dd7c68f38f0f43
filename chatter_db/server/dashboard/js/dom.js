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

// Makes `children` all that is in `box`. What stays is not touched, what had the focus has it
// again, what was unfolded or scrolled stays so.
export function redraw(box, ...children) {
  const focused = box.contains(document.activeElement) ? document.activeElement : null;
  const same = () => [...box.querySelectorAll("a, button, input, summary")].filter((e) => called(e) === called(focused));
  const place = focused && same().indexOf(focused);
  const unfolded = [...box.querySelectorAll("details[open] > summary")].map(called);
  const scrolled = [...box.querySelectorAll(".scroll")].map((e) => e.scrollLeft);

  const kept = new Set(children);
  for (const old of [...box.childNodes]) if (!kept.has(old)) old.remove();
  children.forEach((child, at) => box.childNodes[at] !== child && box.insertBefore(child, box.childNodes[at] ?? null));

  for (const summary of box.querySelectorAll("summary")) if (unfolded.includes(called(summary))) summary.parentElement.open = true;
  box.querySelectorAll(".scroll").forEach((e, at) => { e.scrollLeft = scrolled[at] ?? 0; });
  if (focused && document.activeElement !== focused) {
    (focused.isConnected ? focused : same()[place] ?? same()[0])?.focus({ preventScroll: true });
  }
}

const called = (e) => e.id || e.getAttribute("href") || e.textContent;

const SVG = new Set(["g", "rect", "line", "text", "title"]);

// Says what is wrong; what is said already is not read out again.
export function said(problem, text) {
  if (problem.textContent !== text) problem.textContent = text;
  problem.hidden = false;
}

export function card(width, heading, ...children) {
  return el("section", { class: `card ${width}` }, el("header", {}, el("h2", {}, heading)), ...children);
}

// columns: [heading, cell(row), class: "n" for numbers]; more: whether there are others than `rows`.
export function table(rows, columns, empty = "Nothing yet.", more = false) {
  if (!rows.length) return el("p", { class: "empty" }, empty);
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...columns.map(([name, , kind]) => el("th", { class: kind, scope: "col" }, name)))),
    el("tbody", {}, ...rows.map((row) =>
      el("tr", {}, ...columns.map(([, cell, kind]) => el("td", { class: kind }, filled(cell(row))))))),
  ), more ? el("p", { class: "more" }, `There are more than these ${rows.length}.`) : null);
}

// A name of nothing but blanks is one, too.
export const filled = (shown) => (typeof shown === "string" && shown && !shown.trim() ? "(blank)" : shown ?? "");

export function choice(name, options, chosen, change) {
  return el("fieldset", { class: "choice" }, el("legend", { class: "unseen" }, name),
    ...options.flatMap(([value, label]) => {
      const id = `${name}-${value}`;
      return [
        el("input", { type: "radio", name, id, value, checked: value === chosen, onchange: () => change(value) }),
        el("label", { for: id }, label),
      ];
    }));
}
