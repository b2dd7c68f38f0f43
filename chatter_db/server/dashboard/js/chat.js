// Conversations: the list, one with each message's figures and trace, and a box to go on with it.

import { ask, newKey, stream } from "./api.js";
import { el, redraw, said as tell, table } from "./dom.js";
import { brief, counted, known, milliseconds, moment, money, number, plural, words } from "./format.js";
import { listen, retrying, throttled } from "./live.js";

// How many pages of the list are shown, and how far it is scrolled; both stay when another
// conversation is opened.
let listed = 1;
let scrolled = 0;
let listAsked = 0;

// What was written and not sent, by conversation: it outlasts the page, and the session.
const unsent = new Map();
export const forget = () => unsent.clear();

// whole: of everybody, as an admin sees them.
export function chat(root, id, whole) {
  const list = el("nav", { class: "card list", "aria-label": "Conversations", onscroll: () => { scrolled = list.scrollTop; } });
  const page = el("section", { class: "card", "aria-label": "Conversation" });
  root.replaceChildren(
    el("div", { class: "head" }, id ? el("a", { href: "#/chat", class: "back" }, "All conversations") : null, el("h1", {}, "Chat"),
      el("button", { type: "button", class: "strong", onclick: () => { location.hash = "#/chat/new"; } }, "New conversation")),
    el("div", { class: id ? "talk open" : "talk" }, list, page),
  );
  const read = () => drawList(list, whole, read, again);
  const lists = throttled(read);
  const again = retrying(lists, list);
  const unlisten = listen((type) => (type === "reset" || type.startsWith("conversation")) && lists());
  read();
  const close = id ? conversation(page, id === "new" ? null : id) : hint(page);
  return () => { unlisten(); close?.(); };
}

function hint(page) {
  page.append(el("p", { class: "empty" }, "Choose a conversation, or begin a new one: its tokens and cost appear as they are booked."));
}

async function drawList(list, whole, read, again) {
  const last = listAsked += 1;
  try {
    const { rows, more } = await pages("/api/conversations?limit=100", listed);
    if (last !== listAsked) return; // answers may overtake each other
    again.over();
    const shown = rows.map((item) =>
      el("a", { href: `#/chat/${item.id}`, "aria-current": location.hash === `#/chat/${item.id}` ? "page" : null },
        el("b", {}, named(item)),
        whole ? el("small", {}, item.user ?? "of nobody") : null,
        el("small", {}, `${counted(item.message_count, "message")} · ${money(known(item.total_cost, item.unpriced_calls))}`)));
    if (more) shown.push(el("button", { type: "button", onclick: () => { listed += 1; read(); } }, "Older conversations"));
    if (!rows.length) shown.push(el("p", { class: "empty" }, "No conversations yet."));
    redraw(list, ...shown);
    list.scrollTop = scrolled;
  } catch (error) {
    if (last !== listAsked) return;
    again.later(error);
    list.replaceChildren(el("p", { class: "problem", role: "alert" }, error.message));
  }
}

const named = (item) => words(item.title, item.external_id) ?? `Conversation of ${moment(item.created_at)}`;

// The first `wanted` pages of a list, and whether there are more.
async function pages(path, wanted) {
  const rows = [];
  let after = null;
  for (let read = 0; read < wanted && (after || !read); read += 1) {
    const page = await ask(after ? `${path}&after=${encodeURIComponent(after)}` : path);
    rows.push(...page.items);
    after = page.next;
  }
  return { rows, more: after !== null };
}

function conversation(page, id) {
  const name = el("h2");
  const totals = el("p", { class: "totals" }, "Loading …");
  const said = el("ol", { class: "said", "aria-live": "polite" });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const text = el("textarea", { rows: 1, required: true, maxlength: 100000, "aria-label": "Your message", placeholder: "What is 12 * (3 + 4) / 7?" });
  const send = el("button", { class: "strong" }, "Send");
  const form = el("form", { class: "ask" }, text, send);
  const earlier = el("button", { type: "button", hidden: true, onclick: () => { shownPages += 1; load(); } }, "Earlier messages");
  page.append(el("header", {}, name, totals), earlier, said, problem, form);
  let busy = false;
  let shownPages = 1;
  let asked = 0;
  let unread = false;
  let drawn = new Map();
  // The message that was sent last, where nobody knows what became of it.
  let lost = null;

  const write = (written) => { text.value = written; unsent.set(id, written); };
  write(unsent.get(id) ?? "");
  text.addEventListener("input", () => unsent.set(id, text.value));
  const load = async () => {
    if (busy) return;
    if (!id) return totals.replaceChildren("A new conversation: it begins with your first message.");
    const last = asked += 1;
    try {
      const [shown, { rows, more }] = await Promise.all([
        ask(`/api/conversations/${id}`),
        pages(`/api/conversations/${id}/messages?steps=true&newest_first=true&limit=200`, shownPages),
      ]);
      // Answers may overtake each other, and a message that was sent meanwhile.
      if (busy || last !== asked) return;
      name.textContent = named(shown);
      drawTotals(totals, shown);
      // A message that is what it was stays, with its trace, and isn't read out again.
      const before = drawn;
      drawn = new Map(rows.reverse().map((row) => [JSON.stringify(row), row])
        .map(([told, row]) => [told, before.get(told) ?? message(row)]));
      redraw(said, ...drawn.values());
      for (const open of said.querySelectorAll(".trace")) readTrace(open);
      earlier.hidden = !more;
      if (unread) problem.hidden = true;
      unread = false;
      again.over();
    } catch (error) {
      if (busy || last !== asked) return;
      if (problem.hidden) unread = true;
      if (unread) tell(problem, `${error.message}${drawn.size ? " What is shown is old." : ""}`);
      again.later(error);
      if (totals.textContent === "Loading …") totals.replaceChildren();
    }
  };
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const content = text.value.trim();
    if (!content || busy) return;
    busy = true; send.disabled = true; problem.hidden = true; unread = false; write("");
    // Read out when it is whole, not at each word.
    said.setAttribute("aria-busy", "true");
    const answer = el("p", {}, "…");
    const figures = el("p", { class: "figures" });
    said.append(el("li", { class: "user" }, el("p", {}, content)), el("li", { class: "assistant" }, answer, figures));
    answer.parentElement.scrollIntoView({ block: "end" });
    let told = null;
    try {
      if (!id) {
        const letters = [...content]; // half of a surrogate pair is none
        const title = letters.length > 60 ? `${letters.slice(0, 60).join("")} …` : content;
        id = (await ask("/api/conversations", { method: "POST", body: { title } })).id;
        unsent.delete(null);
        write(text.value);
        if (page.isConnected) history.replaceState(null, "", `#/chat/${id}`);
      }
      let begun = false;
      if (lost?.content !== content) lost = { content, key: newKey() };
      for await (const { event: kind, data } of stream(`/api/conversations/${id}/messages`, { content }, lost.key)) {
        told = kind;
        if (kind === "token") {
          answer.textContent = (begun ? answer.textContent : "") + data.text;
          begun = true;
        } else if (kind === "tool_call_start") figures.textContent = `calling ${data.tool_name ?? data.name ?? "a tool"} …`;
        else if (kind === "done") answer.textContent = data.content;
        else if (kind === "error") throw new Error(data.detail);
      }
      if (told && told !== "done") throw new Error("The answer broke off.");
      lost = null;
    } catch (error) {
      // Begun and left, which ends it, or its key is spent: sent again, it is another one.
      if (told || error.status === 422 || (error.status === 409 && !error.later)) lost = null;
      tell(problem, error.message);
      write(words(text.value) ? `${content}\n${text.value}` : content);
    }
    busy = false; send.disabled = false;
    await load();
    said.removeAttribute("aria-busy");
    // Who went elsewhere meanwhile stays there.
    if (document.activeElement === document.body || form.contains(document.activeElement)) text.focus();
  });
  const soon = throttled(load, 700);
  const again = retrying(soon, page);
  load();
  return listen((type, event) => (type === "reset" || event.conversation_id === id) && soon());
}

function drawTotals(totals, shown) {
  totals.replaceChildren(
    several(shown.message_count, "message"), several(shown.prompt_tokens, "prompt token"),
    several(shown.completion_tokens, "completion token"), part("cost", money(known(shown.total_cost, shown.unpriced_calls))),
    ...(shown.unpriced_calls ? [part(`${plural(shown.unpriced_calls, "call")} of unknown price`, number(shown.unpriced_calls))] : []),
  );
}

const part = (name, value) => el("span", {}, el("b", {}, value), ` ${name}`);
const several = (value, what) => part(plural(value, what), number(value));

function message(row) {
  const kind = row.kind === "step" ? "step" : row.role;
  const called = Array.isArray(row.tool_calls) ? row.tool_calls.map((call) => call?.name).filter(Boolean).join(", ") : "";
  const text = row.content || (called ? `calls ${called}` : row.error_type ? "" : "(no text)");
  const figures = el("p", { class: "figures" });
  if (row.kind === "step") figures.append(el("span", {}, row.role === "tool" ? "tool result" : "step"));
  if (row.model_used || row.role === "assistant") {
    figures.append(el("span", {}, words(row.model_used) ?? "no model"), el("span", {}, tokens(row)),
      el("span", {}, money(row.cost)), el("span", {}, milliseconds(row.response_time_ms)));
  } else if (row.cost !== null) figures.append(el("span", {}, money(row.cost)));
  figures.append(el("time", { datetime: row.created_at }, moment(row.created_at)));
  if (row.status !== "completed") figures.append(el("span", { class: `tag ${row.status}` }, row.error_type ? `${row.status}: ${row.error_type}` : row.status));
  const shown = el("li", { class: kind, "data-kind": row.kind }, el("span", { class: "unseen" }, row.role), el("p", {}, text), figures);
  if (row.role === "assistant" && row.correlation_id) {
    figures.append(el("button", { type: "button", "aria-expanded": "false", onclick: (event) => toggleTrace(event.target, shown, row.correlation_id) }, "trace"));
  }
  return shown;
}

function tokens(row) {
  if (row.prompt_tokens !== null || row.completion_tokens !== null) return `${brief(row.prompt_tokens)} + ${brief(row.completion_tokens)} tokens`;
  return row.total_tokens === null ? "tokens unknown" : counted(row.total_tokens, "token", brief);
}

function toggleTrace(button, shown, id) {
  const open = shown.querySelector(".trace");
  button.setAttribute("aria-expanded", String(!open));
  if (open) return open.remove();
  const box = el("div", { class: "trace", "data-of": id }, "Loading …");
  shown.append(box);
  readTrace(box);
}

// Steps that have a cost, if an unknown one.
const PAID = new Set(["workflow", "model call"]);

async function readTrace(box) {
  try {
    const told = await ask(`/api/trace/${encodeURIComponent(box.dataset.of)}`);
    const began = new Date(told.steps[0].began_at);
    redraw(box, table(told.steps, [
      ["step", (s) => `${s.step} ${s.name ?? ""}`], ["status", (s) => s.status],
      ["at", (s) => milliseconds(new Date(s.began_at) - began), "n"], ["took", (s) => milliseconds(s.duration_ms), "n"],
      ["tokens", (s) => s.prompt_tokens === null && s.completion_tokens === null ? "" : `${brief(s.prompt_tokens)} + ${brief(s.completion_tokens)}`, "n"],
      ["cost", (s) => s.cost === null && !PAID.has(s.step) ? "" : money(s.cost), "n"]]));
  } catch (error) { box.textContent = error.message; }
}
