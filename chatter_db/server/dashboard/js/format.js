// Numbers and times as people read them. Money comes as decimal text and is only rounded here.

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const number = (value) => (value == null ? "–" : count.format(value));
export const brief = (value) => (value == null ? "–" : Math.abs(value) < 10_000 ? count.format(value) : short.format(value));

// The first text that has more than blanks.
export const words = (...texts) => texts.find((text) => text?.trim());

export const plural = (value, what) => (Number(value) === 1 ? what : `${what}s`);
export const counted = (value, what, format = number) => `${format(value)} ${plural(value, what)}`;

export function money(value) {
  if (value == null) return "unknown";
  const amount = Number(value);
  // What is not 0 is never shown as 0.
  if (amount > 0 && amount < 0.00001) return "$" + amount.toLocaleString("en", { maximumSignificantDigits: 3 });
  if (amount >= 1_000_000) return "$" + number(amount);
  const digits = amount === 0 || amount >= 1 ? 2 : amount >= 0.01 ? 4 : 6;
  return "$" + amount.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: digits });
}

export const milliseconds = (value) =>
  value == null ? "–" : value > 0 && value < 0.5 ? "< 1 ms" : value < 999.5 ? `${Math.round(value)} ms`
    : value < 600_000 ? `${(value / 1000).toFixed(1)} s` : `${number(value / 60_000)} min`;

export const time = (value) => new Date(value).toLocaleTimeString("en-GB");
export const moment = (value) => (value ? new Date(value).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "–");
export const percent = (share) =>
  share > 0 && share < 0.0005 ? "< 0.1 %" : share >= 0.995 && share < 1 ? "> 99 %" : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
export const sum = (rows, name) => rows.reduce((total, row) => total + Number(row[name] ?? 0), 0);

// A cost of 0 of calls whose prices nobody knows is no cost: null, which money() tells.
export const known = (cost, unpriced, calls = unpriced) => (Number(cost) === 0 && unpriced > 0 && unpriced >= calls ? null : cost);
export const spent = (rows) => known(sum(rows, "cost"), sum(rows, "unpriced_calls"), sum(rows, "calls"));
