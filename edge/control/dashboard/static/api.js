// The admin API. One rule: the token lives in this variable and nowhere else: no storage, no cookie, no address.

let token = "";
let locked = () => {};

/** What to do when the API wants a (different) token. */
export function onLocked(work) {
  locked = work;
}

export function setToken(given) {
  token = given;
}

/** What the API answered instead of what was wanted: status and one clear line. */
export class Problem extends Error {
  constructor(status, detail, retry) {
    super(detail);
    this.status = status;
    this.retry = retry;
  }
}

async function problem(response) {
  let detail = `${response.status} ${response.statusText}`;
  try {
    detail = (await response.json()).detail || detail;
  } catch {
    // not a problem document: the status line has to do
  }
  if (response.status === 401) {
    token = "";
    locked(detail);
  }
  return new Problem(response.status, detail, Number(response.headers.get("Retry-After")) || 0);
}

async function send(method, path, body, headers, signal) {
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      headers: { Authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "the gateway does not answer");
  }
  if (!response.ok) throw await problem(response);
  return response;
}

/** The JSON at a path. */
export async function get(path) {
  return (await send("GET", path)).json();
}

/** JSON, and how many milliseconds of the gateway's time it took to make. */
export async function timed(path) {
  const response = await send("GET", path);
  const took = /dur=([0-9.]+)/.exec(response.headers.get("Server-Timing") || "");
  return [await response.json(), took ? Number(took[1]) : 0];
}

export async function change(method, path, body) {
  return (await send(method, path, body)).json();
}

/** Long work: each step as it comes, then the last line. */
export async function work(path, body, told) {
  const response = await send("POST", path, body, { Accept: "application/x-ndjson" });
  let last = {};
  for await (const line of lines(response.body)) {
    if (!line.trim()) continue;
    last = JSON.parse(line);
    told(last);
  }
  if (last.finished === false) throw new Problem(last.status || 500, last.detail || last.error || "it did not finish");
  return last;
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts;
  }
  if (rest) yield rest;
}

/**
 * Server-sent events with a bearer token, which EventSource cannot send. `told` gets each event; it begins again where
 * it broke off, later each time, until `signal` ends it.
 */
export async function listen(after, told, state, signal) {
  let last = after;
  let pause = 1000;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": String(last) } : {}) };
      const response = await send("GET", "/v1/events", undefined, headers, signal);
      state(true);
      pause = 1000;
      let data = [];
      for await (const line of lines(response.body)) {
        if (line.startsWith("id:")) last = line.slice(3).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
        else if (line === "" && data.length) {
          told(JSON.parse(data.join("\n")));
          data = [];
        }
      }
    } catch (error) {
      if (error.name === "AbortError" || error.status === 401) return;
    }
    state(false);
    await new Promise((done) => setTimeout(done, pause));
    pause = Math.min(pause * 2, 30000);
  }
}
