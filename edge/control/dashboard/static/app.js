// The page: it asks for the token once, then for numbers, as seldom as is enough, and never while nobody looks.

import { Problem, change, get, listen, onLocked, setToken, timed, work } from "./api.js";
import { ask, askChange, purgeForm } from "./actions.js";
import { Backends } from "./backends.js";
import { Cache } from "./cache.js";
import { Charts } from "./charts.js";
import { Events } from "./events.js";
import { Explain } from "./explain.js";
import { Fleet } from "./fleet.js";
import { Overview } from "./overview.js";
import { Recovery } from "./recovery.js";
import { Regions, flows } from "./regions.js";

const NUMBERS_MS = 2000;
const STORES_MS = 5000;
const COST = 200; // the page waits this many times as long as its last answers took to make: half a percent of a core

const at = (id) => document.getElementById(id);
const overview = new Overview(at("tiles"));
const charts = new Charts(at("charts"));
const regions = new Regions(at("regions"), changed);
const backends = new Backends(at("backends"), changed);
const cache = new Cache(at("cache"));
const fleet = new Fleet(at("fleet"));
const events = new Events(at("events"));
const recovery = new Recovery(at("recovery"), {
  take: (kind, told) => done(work("/v1/snapshots", { kind, reason: "dashboard" }, told)),
  verify: (id, told) => done(work(`/v1/snapshots/${encodeURIComponent(id)}/verify`, {}, told)),
  drill: (id, told) => done(work(`/v1/snapshots/${encodeURIComponent(id)}/drill`, {}, told)),
  hold: (id) => done(change("POST", `/v1/snapshots/${encodeURIComponent(id)}/hold`, { reason: "dashboard" })),
  release: (id) => done(change("POST", `/v1/snapshots/${encodeURIComponent(id)}/release`, {})),
});
new Explain(at("explain"), (query) => get(`/v1/explain?${query}`));
purgeForm(at("purge"), (body) => change("POST", "/v1/purge", body));

let step = 1;
let anew = true; // the charts begin again
let paused = false;
let listening = null;
let polledAt = 0;
let hasFleet = false;
let hasPoints = false; // the configuration has [snapshots]
let shares = {}; // the last rows' requests by region

// -- asking ---------------------------------------------------------------------------------------------------------

async function numbers() {
  const [[status, a], [found, b], [whole, c]] = await Promise.all([
    timed("/v1/status"),
    timed(`/v1/series?step=${step}&after=${anew ? 0 : charts.last}`),
    timed("/v1/regions"),
  ]);
  const now = performance.now();
  charts.take(found, anew);
  overview.status(status);
  overview.series(charts.rows);
  keep(found);
  regions.set(whole.regions, flows(shares, step));
  backends.set(status.backends, polledAt ? (now - polledAt) / 1000 : 0);
  recovery.status(status.recovery);
  hasPoints = status.recovery !== null;
  polledAt = now;
  anew = false;
  return a + b + c;
}

/** The newest rows by region, over several answers. */
function keep(found) {
  const names = new Set([...Object.keys(shares), ...Object.keys(found.regions)]);
  const fresh = found.rows.length;
  const next = {};
  for (const name of names) {
    next[name] = [...(anew ? [] : shares[name] || []), ...(found.regions[name] || new Array(fresh).fill(0))].slice(-20);
  }
  shares = next;
}

async function stores() {
  const [[found, a], [hot, b]] = await Promise.all([timed("/v1/cache"), timed("/v1/cache/top?limit=15")]);
  cache.set(found);
  cache.hottest(hot);
  if (hasFleet) fleet.set(await get("/v1/fleet"));
  return a + b;
}

async function points() {
  if (hasPoints) recovery.points(await get("/v1/snapshots"));
}

function every(least, ask) {
  let timer = 0;
  const round = async () => {
    let wait = least;
    if (!paused && !document.hidden && listening !== null) {
      try {
        wait = Math.max(least, (await ask()) * COST);
        trouble("");
      } catch (error) {
        if (error.status === 401) return;
        if (!(error instanceof Problem)) throw error;
        trouble(error.message);
        wait = Math.max(least, error.retry * 1000);
      }
    }
    timer = setTimeout(round, wait);
  };
  return () => {
    clearTimeout(timer);
    return round();
  };
}

const askNumbers = every(NUMBERS_MS, numbers);
const askStores = every(STORES_MS, stores);

function trouble(text) {
  at("trouble").hidden = !text;
  if (at("trouble").textContent !== text) at("trouble").textContent = text;
  if (text) overview.lost("no answer");
}

// -- changing -------------------------------------------------------------------------------------------------------

async function changed(what, state, name, pool) {
  const body = await askChange(what, state, name);
  if (body === null) return;
  const path = what === "region" ? `/v1/regions/${encodeURIComponent(name)}/state` : `/v1/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(name)}/state`;
  await done(change("POST", path, body));
  await askNumbers();
}

/** Wait for a change; what went wrong is told where people look. */
async function done(promise) {
  try {
    await promise;
    await points();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    await ask("It was not done", error.message, [], "Close");
  }
}

// -- token and life ---------------------------------------------------------------------------------------------------

async function begin(why) {
  if (listening !== null) listening.abort();
  listening = null;
  overview.lost("locked");
  for (;;) {
    const given = await ask("Token", why || "The admin API's token: the text of the file that admin.token_file names, var/admin.token by default. It stays in this page's memory alone.", [{ name: "token", label: "Token", type: "password", required: true }], "Open");
    if (given === null) continue;
    setToken(given.token.trim());
    try {
      const status = await get("/v1/status");
      hasFleet = status.fleet;
      hasPoints = status.recovery !== null;
      at("fleet-link").hidden = !hasFleet;
      break;
    } catch (error) {
      why = error.message;
    }
  }
  at("leave").hidden = false;
  anew = true;
  listening = new AbortController();
  events.clear();
  listen(0, told, (on) => events.connected(on), listening.signal);
  await Promise.all([askNumbers(), askStores(), points().catch(() => {})]);
}

function told(event) {
  events.add(event);
  if (/^(region|backend)\./.test(event.kind)) soon(askNumbers);
  if (/^recovery\./.test(event.kind)) soon(points);
}

const waiting = new Map();

function soon(work) {
  if (waiting.has(work) || document.hidden || paused) return;
  waiting.set(work, setTimeout(() => {
    waiting.delete(work);
    work();
  }, 300));
}

let asking = false;
onLocked(async (why) => {
  if (asking) return;
  asking = true;
  await begin(why);
  asking = false;
});

at("leave").addEventListener("click", () => location.reload());
at("window").addEventListener("change", (event) => {
  step = Number(event.target.value);
  anew = true;
  askNumbers();
});
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  at("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) askNumbers();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && listening !== null) askNumbers();
});

const THEMES = ["system", "light", "dark"];
let theme = 0;
at("theme").addEventListener("click", () => {
  theme = (theme + 1) % THEMES.length;
  at("theme").textContent = `Theme: ${THEMES[theme]}`;
  if (theme === 0) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = THEMES[theme];
  charts.restyle();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.restyle());

asking = true;
begin("").then(() => {
  asking = false;
});
