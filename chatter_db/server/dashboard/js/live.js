// The event stream of this page: one EventSource, which the browser reconnects with the
// position of its last event. So a restart of the server loses nothing.

const TYPES = [
  "conversation_created", "conversation_updated", "message_created", "model_response", "tool_called",
  "workflow_started", "workflow_completed", "workflow_failed", "workflow_cancelled", "alert_raised",
  "analytics_refreshed",
];
// What happens at the door, which admins hear of: not what figures are made of.
const DOOR = [
  "login_success", "login_failure", "login_blocked", "account_locked", "account_created", "account_deactivated",
  "password_changed", "password_reset_requested", "password_reset_completed", "token_created", "token_refreshed",
  "token_revoked", "api_key_created", "api_key_used", "api_key_revoked", "brute_force_attempt", "anomalous_login",
  "multiple_failures", "suspicious_ip", "rate_limit_exceeded", "block_lifted",
];

const RETRY_MS = 5000;
// A stream to which nothing happens is told its position every minute or so. One that is silent for
// longer is none, though nobody has said so: its server froze, or the network was gone.
const SILENCE_MS = 90_000;

const listeners = new Set();
let source = null;
let again = null;
let silence = null;
let show = () => {};

// Resolves when the stream is open: what is asked from then on misses nothing. `lapsed` is
// called when it was interrupted: its session may be over, or have become another one.
export function begin(status, lapsed, admin) {
  end();
  show = status;
  show("Connecting …", false);
  return new Promise((resolve) => {
    connect(lapsed, admin, resolve);
    // Without a stream the figures are still to be had.
    setTimeout(resolve, 3000);
  });
}

function connect(lapsed, admin, opened) {
  const categories = ["workflow", "conversation", "alert", "analytics", ...(admin ? ["security"] : [])];
  source = new EventSource(`/api/events?${categories.map((name) => `category=${name}`).join("&")}`);
  let lost = false;
  // What is missed until then is read anew; the session may have become another one.
  const anew = () => connect(lapsed, admin, () => { tell("reset", {}); lapsed(); });
  const hear = (type, told) => source.addEventListener(type, (event) => { alive(); told(event); });
  const alive = () => {
    clearTimeout(silence);
    silence = setTimeout(() => { end(); show("Reconnecting …", false); anew(); }, SILENCE_MS);
  };
  source.onerror = () => {
    lost = true;
    const over = source.readyState === EventSource.CLOSED;
    show(over ? "Not live" : "Reconnecting …", false);
    if (!over) return;
    end();
    again = setTimeout(anew, RETRY_MS);
    lapsed();
  };
  source.onopen = () => {
    alive();
    show("Live", true);
    // What could not be read meanwhile is read anew.
    if (lost) { tell("reset", {}); lapsed(); }
  };
  for (const type of DOOR) hear(type, () => tell("door", {}));
  for (const type of TYPES) hear(type, (event) => tell(type, JSON.parse(event.data)));
  hear("reset", () => tell("reset", {}));
  hear("position", () => { opened(); opened = () => {}; });
  alive();
}

export function end() {
  clearTimeout(again);
  clearTimeout(silence);
  source?.close();
  source = null;
}

export function listen(hear) {
  listeners.add(hear);
  return () => listeners.delete(hear);
}

// Calls `work` soon after it is asked to, however often that is: at most once a second.
export function throttled(work, every = 1000, soon = 120) {
  let timer = null;
  let last = 0;
  let working = null;
  return () => {
    if (timer !== null) return;
    timer = setTimeout(async () => {
      await working;
      // What comes from here on may not be in what `work` reads: it is asked again.
      timer = null;
      last = Date.now();
      working = work();
    }, Math.max(soon, last + every - Date.now()));
  };
}

// Calls `work`, which failed, again: after a second, then ever less often, while `box` is shown.
// What is refused for good (a 404) stays refused.
export function retrying(work, box, first = 1000, longest = 60_000) {
  let timer = null;
  let wait = first;
  return {
    later({ status }) {
      if (status >= 400 && status < 500 && status !== 429) return;
      timer ??= setTimeout(() => { timer = null; wait = Math.min(2 * wait, longest); if (box.isConnected) work(); }, wait);
    },
    over() { clearTimeout(timer); timer = null; wait = first; },
  };
}

function tell(type, event) {
  for (const hear of listeners) hear(type, event);
}
