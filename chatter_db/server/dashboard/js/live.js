// The event stream of this page: one EventSource, which the browser reconnects with the
// position of its last event. So a restart of the server loses nothing.

const TYPES = [
  "conversation_created", "conversation_updated", "message_created", "model_response", "tool_called",
  "workflow_started", "workflow_completed", "workflow_failed", "workflow_cancelled", "alert_raised",
  "analytics_refreshed",
];

const listeners = new Set();
let source = null;
let show = () => {};

// Resolves when the stream is open: what is asked from then on misses nothing. `refused` is
// called when the server doesn't take it back: browsers don't try again by themselves then.
export function begin(status, refused) {
  end();
  show = status;
  show("Connecting …", false);
  source = new EventSource("/api/events?category=workflow&category=conversation&category=alert&category=analytics");
  source.onerror = () => {
    const over = source.readyState === EventSource.CLOSED;
    show(over ? "Not live" : "Reconnecting …", false);
    if (over) refused();
  };
  source.onopen = () => show("Live", true);
  for (const type of TYPES) source.addEventListener(type, (event) => tell(type, JSON.parse(event.data)));
  source.addEventListener("reset", () => tell("reset", {}));
  return new Promise((resolve) => {
    source.addEventListener("position", resolve, { once: true });
    // Without a stream the figures are still to be had.
    setTimeout(resolve, 3000);
  });
}

export function end() {
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
  return () => {
    if (timer !== null) return;
    timer = setTimeout(async () => {
      last = Date.now();
      await work();
      timer = null;
    }, Math.max(soon, last + every - Date.now()));
  };
}

function tell(type, event) {
  for (const hear of listeners) hear(type, event);
}
