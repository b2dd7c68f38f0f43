// For admins: alerts, and what happened at the door.

import { ask } from "./api.js";
import { card, el, redraw, table } from "./dom.js";
import { moment } from "./format.js";
import { listen, retrying, throttled } from "./live.js";

export function security(root) {
  const body = el("div", { class: "grid" }, el("p", { class: "loading w12" }, "Loading …"));
  root.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Security")), body);
  const load = async () => {
    try {
      const [alerts, events] = await Promise.all([ask("/api/security/alerts?limit=50"), ask("/api/security/events?limit=100")]);
      again.over();
      redraw(body,
        card("w12", "Alerts", table(alerts.items, [
          ["when", (r) => moment(r.created_at), "when"], ["rule", (r) => r.rule_name], ["whom", (r) => `${r.subject.replace("_", " ")} ${r.subject_value}`, "name"],
          ["severity", (r) => severity(r.severity)], ["events", (r) => String(r.events), "n"],
          ["blocked until", (r) => moment(r.blocked_until), "when"]], "No threshold was reached.", alerts.next !== null)),
        card("w12", "What happened at the door", table(events.items, [
          ["when", (r) => moment(r.created_at), "when"], ["what", (r) => r.event_type.replaceAll("_", " ")],
          ["severity", (r) => severity(r.severity), "wide"], ["from", (r) => r.ip_address ?? "–"], ["user", (r) => r.user ?? "–", "name"]],
          "Nothing yet.", events.next !== null)),
      );
    } catch (error) {
      again.later(error);
      body.replaceChildren(el("p", { class: "problem w12", role: "alert" }, error.message));
    }
  };
  const soon = throttled(load, 2000);
  const again = retrying(soon, body);
  // Never two at once: one of them could be shown after a newer one.
  soon();
  return listen((type) => (type === "door" || type === "alert_raised" || type === "reset") && soon());
}

const severity = (name) => el("span", { class: `tag ${name}` }, name);
