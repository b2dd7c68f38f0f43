// The server's JSON, with its problems as errors.

const PATIENCE_MS = 60_000;

export class Problem extends Error {
  constructor(status, body, later) {
    super(body?.detail ?? `The server answered ${status}.`);
    this.status = status;
    this.later = later; // whether the same may be asked again
  }
}

export async function ask(path, { method = "GET", body, headers = {} } = {}) {
  const patience = new AbortController();
  // A read without an answer is asked again; what is written may have been done.
  const timer = method === "GET" ? setTimeout(() => patience.abort(new Error("The server did not answer within a minute.")), PATIENCE_MS) : null;
  try {
    const response = await fetch(path, {
      method,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: patience.signal,
    });
    if (!response.ok) throw await problem(response);
    return response.status === 204 ? null : await response.json();
  } finally { clearTimeout(timer); }
}

// What stands for one message, however often it is sent.
export const newKey = () => crypto.randomUUID?.() ?? String(Math.random());

// The events of a streamed answer, as they come: { event, data }; none if it was given before.
export async function* stream(path, body, key) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream", "Idempotency-Key": key },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw await problem(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    waiting += value;
    const blocks = waiting.split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      if (fields.data) yield { event: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

async function problem(response) {
  return new Problem(response.status, await response.json().catch(() => null), response.headers.has("Retry-After"));
}
