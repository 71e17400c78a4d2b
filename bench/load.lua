-- The load: what each request looks like, and one line of figures at the end.
--   plain          wrk's own small head, one path
--   unique         the same with an X-Id that no other request has
--   cold           a path that nobody asked for before; cold-unique: with such an X-Id as well
--   zipf N s       browser-like heads of 500 bytes, 64 user agents, objects 00000..N-1 after a Zipf law
--   each N         every object once in turn (warming)
--   fill N            paths 1..N, one after the other; after those, again
--   tenth N           nine in ten of those by chance, one in ten a path that nobody asked for before
--   slow N s       browser-like heads, nine in ten on cacheable objects (c/), one in ten not (n/)
-- Requests are made before the run, so that the run itself only looks them up; but for unique and cold, of course.

local PREPARED = 16384
local requests, at = {}, 0

local function agents()
  local list = {}
  for i = 1, 64 do
    list[i] = string.format(
      "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.%d.%d Safari/537.36",
      100 + i, 5000 + i, i)
  end
  return list
end

local function head(path, agent)
  local lines = {
    "GET " .. path .. " HTTP/1.1",
    "Host: " .. wrk.host .. ":" .. wrk.port,
    "Connection: keep-alive",
    'sec-ch-ua: "Chromium";v="120", "Not?A_Brand";v="24"',
    "sec-ch-ua-mobile: ?0",
    "User-Agent: " .. agent,
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Mode: no-cors",
    "Accept-Encoding: identity",
    "Accept-Language: en-GB,en;q=0.9",
  }
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function zipf(n, s)
  local cumulated, sum = {}, 0
  for rank = 1, n do
    sum = sum + 1 / rank ^ s
    cumulated[rank] = sum
  end
  return function()
    local point, low, high = math.random() * sum, 1, n
    while low < high do
      local middle = math.floor((low + high) / 2)
      if cumulated[middle] < point then low = middle + 1 else high = middle end
    end
    return low - 1
  end
end

-- One request after the other, none as any before: not in an earlier run either.
local function never_the_same(mode, prefix)
  local run = string.format("%x%x", os.time(), math.floor(os.clock() * 1e6))
  local host = " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n"
  request = function()
    at = at + 1
    local id = run .. at
    local path = mode == "unique" and prefix or prefix .. id
    local field = mode == "cold" and "" or "X-Id: " .. id .. "\r\n"
    return "GET " .. path .. host .. field .. "\r\n"
  end
end

-- A store that is full, with a tenth of misses.
local function numbered(mode, n, prefix)
  local run = string.format("%x%x", os.time(), math.floor(os.clock() * 1e6))
  local host = " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n\r\n"
  math.randomseed(42)
  request = function()
    at = at + 1
    local path = prefix .. (mode == "fill" and (at - 1) % n + 1 or math.random(n))
    if mode == "tenth" and at % 10 == 0 then path = prefix .. run .. at end
    return "GET " .. path .. host
  end
end

function init(args)
  local mode, n, s, prefix = args[1] or "plain", tonumber(args[2] or 0), tonumber(args[3] or 1), wrk.path
  if mode == "plain" then return end
  if mode == "unique" or mode == "cold" or mode == "cold-unique" then return never_the_same(mode, prefix) end
  if mode == "fill" or mode == "tenth" then return numbered(mode, n, prefix) end
  math.randomseed(42)
  local names, pick = agents(), zipf(math.max(n, 1), s)
  local count = mode == "each" and n or PREPARED
  for i = 1, count do
    local agent, object = names[math.random(64)], string.format("%05d", mode == "each" and i - 1 or pick())
    if mode == "slow" then object = (math.random() < 0.9 and "c/" or "n/") .. object end
    requests[i] = head(prefix .. object, agent)
  end
  request = function()
    at = at % count + 1
    return requests[at]
  end
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format("FIGURES %d %d %d %d %d %d %d\n", summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
