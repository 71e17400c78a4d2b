// Numbers, sizes, spans and times as people read them.

const PREFIXES = ["", "k", "M", "G", "T", "P"];

/** 1234 → "1.23 k"; three figures at most. */
export function count(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  let at = 0;
  let left = Math.abs(value);
  while (left >= 999.5 && at < PREFIXES.length - 1) {
    left /= 1000;
    at += 1;
  }
  const digits = at === 0 && Number.isInteger(value) ? 0 : left >= 99.5 ? 0 : left >= 9.95 ? 1 : 2;
  return `${value < 0 ? "−" : ""}${left.toFixed(digits)}${at ? ` ${PREFIXES[at]}` : ""}`;
}

/** A whole number with groups of digits. */
export function whole(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US");
}

/** Bytes, in powers of 1024. */
export function bytes(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  let at = 0;
  let left = value;
  while (left >= 1023.5 && at < 5) {
    left /= 1024;
    at += 1;
  }
  const digits = at === 0 || left >= 99.5 ? 0 : left >= 9.95 ? 1 : 2;
  return `${left.toFixed(digits)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][at]}`;
}

/** Bits per second, as links are sold. */
export function bits(bytesPerSecond) {
  if (bytesPerSecond === null || bytesPerSecond === undefined) return "–";
  const text = count(bytesPerSecond * 8);
  return /\d$/.test(text) ? `${text} bit/s` : `${text}bit/s`;
}

export function percent(part, digits = 1) {
  return part === null || part === undefined || !Number.isFinite(part) ? "–" : `${(part * 100).toFixed(digits)} %`;
}

export function ms(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2)} ms`;
}

/** A span of time in its two largest units. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  let left = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [name, size] of units) {
    const many = Math.floor(left / size);
    left -= many * size;
    if (many) parts.push(`${many} ${name}`);
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}

/** The time of day here. */
export function clock(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? "–" : at.toLocaleTimeString("en-GB");
}

/** Day and time here. */
export function moment(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? "–" : `${at.toLocaleDateString("sv-SE")} ${at.toLocaleTimeString("en-GB")}`;
}

/** How long ago. */
export function ago(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? "never" : `${span((Date.now() - at.getTime()) / 1000)} ago`;
}
