// The first page: what was spent, where it goes, what runs.

import { ask } from "./api.js";
import { bars } from "./charts.js";
import { card, choice, el, filled, redraw, said, table } from "./dom.js";
import { brief, counted, known, milliseconds, moment, money, number, percent, spent, sum, time, words } from "./format.js";
import { listen, retrying, throttled } from "./live.js";

const RANGES = [["today", "Today"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["all", "All"]];
const MEASURES = [["cost", "Cost"], ["total_tokens", "Tokens"], ["calls", "Calls"]];
const chosen = { range: "30d", measure: "cost" };
let before = {};
// Whose days: the reader's, or UTC's where the database does not know them.
const own = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
let zone = own;

export function overview(root, admin) {
  const body = el("div", { class: "grid" });
  const fresh = el("p", { class: "totals" });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  let latest = null;

  const draw = () => latest && redraw(body, ...cards(latest, draw, body.clientWidth - 40));
  const load = async () => {
    const range = chosen.range;
    const days = zone;
    try {
      const period = `range=${range}&time_zone=${encodeURIComponent(days)}`;
      const asked = admin ? ["breakdown", "performance", "overview"] : ["overview"];
      const answers = await Promise.all(asked.map((name) => ask(`/api/${name}?${period}`)));
      const told = Object.assign({}, ...answers, { more: answers.flatMap((answer) => answer.more) });
      // Answers may overtake each other: of another period, or older than what is shown.
      if (range !== chosen.range || (latest?.range === range && told.as_of < latest.as_of)) return;
      latest = { ...told, range, ahead: new Date(told.as_of) - Date.now() };
      again.over();
      problem.hidden = true;
      fresh.textContent = `Exact at ${time(latest.as_of)}${whose(latest)}`;
      draw();
    } catch (error) {
      if (range !== chosen.range) return;
      if (error.status === 422 && days !== "UTC") { zone = "UTC"; return load(); }
      again.later(error);
      const old = latest ? ` Those below are old, of ${moment(latest.as_of)}.` : "";
      said(problem, `The figures could not be read: ${error.message}${old}`);
      if (!latest) body.replaceChildren();
    }
  };
  const soon = throttled(load);
  const again = retrying(soon, body);

  body.append(el("p", { class: "loading w12" }, "Loading …"));
  root.replaceChildren(
    el("div", { class: "head" }, el("h1", {}, "Overview"), fresh,
      choice("Period", RANGES, chosen.range, (range) => { chosen.range = range; load(); })),
    problem, body,
  );
  load();
  const stop = listen((type) => type !== "door" && soon());
  // A chart that was drawn for another width has letters of another size.
  const resized = throttled(draw, 300);
  addEventListener("resize", resized);
  const ticking = setInterval(() => {
    for (const cell of body.querySelectorAll("[data-since]")) cell.textContent = elapsed(cell.dataset.since, latest.ahead);
    // Nothing happens at midnight, and yet what was today's is not any more.
    if (latest && localDay(latest, Date.now() + latest.ahead) !== localDay(latest)) soon();
  }, 1000);
  return () => { stop(); clearInterval(ticking); removeEventListener("resize", resized); };
}

function cards(told, redraw, width) {
  const rows = told.over_time;
  const day = localDay(told);
  const today = rows.filter((row) => row.at.slice(0, 10) === day);
  const failed = sum(rows, "failed_calls"), calls = sum(rows, "calls");
  const period = RANGES.find(([value]) => value === told.range)[1].toLowerCase();
  const whole = told.scope === "all";
  const list = (name, columns, empty) => table(told[name], columns, empty, told.more.includes(name));
  const made = [
    spentTile("Spent today", today),
    spentTile(`Spent, ${period}`, rows),
    tile(`Model calls, ${period}`, number(calls), calls ? `${percent(failed / calls)} failed or cancelled` : "none yet"),
    tile("Running now", number(told.running_count), told.running.length ? filled(told.running[0].workflow_name) : "all quiet"),
    el("section", { class: "card w12" },
      el("header", {}, el("h2", {}, "Over time, by model"),
        choice("Measure", MEASURES, chosen.measure,
          (measure) => { chosen.measure = measure; redraw(); })),
      chart(told, width)),
  ];
  const running = card("", "Running now", list("running", [
    ["workflow", (r) => r.conversation_id ? el("a", { href: `#/chat/${r.conversation_id}` }, filled(r.workflow_name)) : r.workflow_name, "name"],
    ["for", (r) => el("span", { "data-since": r.started_at }, elapsed(r.started_at, told.ahead)), "n"],
    ["calls", (r) => number(r.model_calls), "n"], ["tokens", (r) => brief(r.total_tokens), "n"],
    ["cost so far", (r) => money(known(r.total_cost, r.unpriced_calls, r.model_calls)), "n"]], "Nothing runs at this moment."));
  const dearest = card("", "Dearest conversations, since they began", list("dearest", [
    ["conversation", (r) => el("a", { href: `#/chat/${r.conversation_id}` }, words(r.conversation) ?? r.conversation_id.slice(-12)), "name"],
    ...(whole ? [["user", (r) => r.user ?? "–", "name wide"]] : []),
    ["messages", (r) => number(r.message_count), "n"], ["tokens", (r) => brief(r.total_tokens), "n"],
    ["cost", (r) => money(r.cost), "n"]]));
  if (!whole) return [...made, stack(running), stack(dearest)];

  const total = Math.max(...told.models.map((row) => Number(row.cost)), 0);
  return [
    ...made,
    stack(
      card("", "Models", list("models", [
        ["model", (r) => shared(named(r, told.models), Number(r.cost) / (total || 1)), "whole"],
        ["calls", (r) => number(r.calls), "n"], ["tokens", (r) => brief(r.total_tokens), "n"],
        ["cost", (r) => money(r.cost), "n"]])),
      dearest,
    ),
    stack(
      running,
      card("", "Users", list("users", [
        ["user", (r) => r.user, "name"], ["calls", (r) => number(r.calls), "n"],
        ["tokens", (r) => brief(r.total_tokens), "n"], ["cost", (r) => money(r.cost), "n"]])),
      card("", "Workflows", list("workflows", [
        ["workflow", (r) => r.workflow_name || "outside of a run", "name"], ["calls", (r) => number(r.calls), "n"],
        ["cost", (r) => money(r.cost), "n"]])),
      card("", "Latency", list("latency", [
        ["model", (r) => named(r, told.latency), "whole"], ["p50", (r) => milliseconds(Number(r.p50_ms)), "n"],
        ["p95", (r) => milliseconds(Number(r.p95_ms)), "n"], ["p99", (r) => milliseconds(Number(r.p99_ms)), "n"]],
      "No call has told its time.")),
      card("", "Tools", list("tools", [
        ["tool", (r) => r.tool, "name"], ["calls", (r) => number(r.calls), "n"], ["failed", (r) => number(r.failed), "n"],
        ["mean", (r) => milliseconds(r.mean_ms === null ? null : Number(r.mean_ms)), "n"]], "No tool was called.")),
    ),
  ];
}

const stack = (...cards) => el("div", { class: "stack w6" }, ...cards);

function spentTile(name, rows) {
  const unpriced = sum(rows, "unpriced_calls");
  return tile(name, money(spent(rows)),
    unpriced ? `${counted(unpriced, "call")} of unknown price ${unpriced === 1 ? "is" : "are"} not in it` : counted(sum(rows, "total_tokens"), "token", brief), unpriced > 0);
}

function tile(name, value, note, warn = false) {
  const changed = before[name] !== undefined && before[name] !== value;
  before[name] = value;
  return el("section", { class: "card tile w3", "data-tile": name }, el("span", {}, name),
    el("b", { class: changed ? "changed" : null }, value), el("small", { class: warn ? "warn" : null }, note));
}

function shared(name, share) {
  const bar = el("span", { class: "share" });
  bar.style.width = `${Math.max(1, share * 100)}%`;
  const cell = document.createDocumentFragment();
  cell.append(name, bar);
  return cell;
}

function chart(told, width) {
  const days = stepsOf(told);
  // Bars of less than a few pixels tell nothing: weeks, from Monday, for a long time.
  const weekly = days.length > 120;
  const step = weekly ? week : (at) => at;
  const added = new Map();
  for (const row of told.over_time) {
    const at = step(row.at.slice(0, told.step === "hour" ? 13 : 10));
    const place = JSON.stringify([at, row.model]);
    const found = added.get(place) ?? { at, key: row.model, parts: [] };
    found.parts.push(row);
    added.set(place, found);
  }
  const rows = [...added.values()].map(({ at, key, parts }) =>
    ({ at, key, value: chosen.measure === "cost" ? spent(parts) : sum(parts, chosen.measure) }));
  const format = chosen.measure === "cost" ? money : brief;
  const hourly = told.step === "hour";
  const year = days[0].slice(0, 4) === days.at(-1).slice(0, 4) ? {} : { year: "numeric" };
  const label = (step) => hourly ? `${step.slice(11, 13)}:00`
    : new Date(`${step.slice(0, 10)}T12:00`).toLocaleDateString("en-GB", { day: "numeric", month: "short", ...year });
  const steps = [...new Set(days.map(step))];
  const [, measure] = MEASURES.find(([value]) => value === chosen.measure);
  return bars({ rows, steps, label, format, width, measure, when: weekly ? "week from" : "when" });
}

function week(day) {
  const monday = new Date(`${day}T00:00Z`);
  monday.setUTCDate(monday.getUTCDate() - ((monday.getUTCDay() + 6) % 7));
  return monday.toISOString().slice(0, 10);
}

// Every hour of today, or every day from the first one on: a day without calls is a gap, not left out.
function stepsOf(told) {
  const today = localDay(told);
  if (told.step === "hour") return Array.from({ length: 24 }, (_, hour) => `${today}T${String(hour).padStart(2, "0")}`);
  const first = told.since ?? told.over_time[0]?.at.slice(0, 10) ?? today;
  const steps = [];
  for (let day = new Date(`${first}T00:00Z`); day.toISOString().slice(0, 10) <= today; day.setUTCDate(day.getUTCDate() + 1)) {
    steps.push(day.toISOString().slice(0, 10));
  }
  return steps;
}

function localDay(told, moment = told.as_of) {
  const options = { timeZone: told.scope === "all" ? zone : "UTC", year: "numeric", month: "2-digit", day: "2-digit" };
  return new Intl.DateTimeFormat("en-CA", options).format(new Date(moment));
}

// Whose days those are, if not the reader's.
function whose(told) {
  if (zone !== own) return `, by days of UTC: the database does not know ${own}`;
  return told.scope === "own" ? ", by days of UTC" : "";
}

// By the clock of the server, which is `ahead` of ours.
function elapsed(since, ahead) {
  const seconds = Math.max(0, (Date.now() + ahead - new Date(since)) / 1000);
  const [size, unit] = [[86_400, "d"], [3600, "h"], [60, "min"]].find(([least]) => seconds >= least) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

// A model's name, and its provider where others of `rows` serve one of that name, too.
function named(row, rows) {
  const alone = !rows.some((other) => other.model === row.model && other.provider !== row.provider);
  return filled(row.model || "no model") + (alone ? "" : ` (${row.provider || "no provider"})`);
}
