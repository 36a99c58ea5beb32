// Values as text. What the daemon sends may be anything: every text is bounded, and characters
// that can't be seen, or that reorder others (bidi controls), are shown as their codes.

const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu;
// Line feeds and tabs, and the joiners of emoji and of several scripts.
const KEPT = "\n\t\u200c\u200d";
export const NONE = "–";
const HUGE = 20_000;

export const isMapping = (value) =>
  typeof value === "object" && value !== null && !Array.isArray(value);
export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
export const isText = (value) => typeof value === "string" && value !== "";
export const listOf = (value) => (Array.isArray(value) ? value : []);

export function visible(text, limit = 400) {
  const part = text.length > limit ? text.slice(0, limit) : text;
  const shown = part.replace(UNSEEN, (c) => (KEPT.includes(c) ? c : code(c)));
  return part === text ? shown : `${shown}… (cut: ${number(text.length)} characters)`;
}

function code(character) {
  const hex = character.codePointAt(0).toString(16);
  return hex.length > 4 ? `\\u{${hex}}` : `\\u${hex.padStart(4, "0")}`;
}

// A value in one line.
export function line(value, limit = 400) {
  if (value === null || value === undefined) return NONE;
  if (typeof value === "number") return number(value);
  if (typeof value === "string") return visible(value, limit).replace(/\s+/g, " ");
  return visible(compact(value), limit);
}

// A list in one line.
export const lines = (list) => visible(listOf(list).map((value) => line(value, 300)).join(", "), 600);

// A long text, or any other value in lines.
export const textOf = (value) => (isText(value) ? visible(value, HUGE) : outline(value));

// A value in indented lines, at most so many.
export function outline(value, most = 200) {
  const found = [];
  for (const text of linesOf(value, "", 0)) {
    if (found.length === most) return [...found, "… (cut)"].join("\n");
    found.push(text);
  }
  return found.join("\n");
}

function* linesOf(value, title, depth) {
  const indent = "  ".repeat(Math.max(0, depth - 1));
  if (typeof value !== "object" || value === null) {
    yield indent + title + (isText(value) ? visible(value, 4000) : line(value));
  } else if (Object.keys(value).length === 0) {
    yield indent + title + (Array.isArray(value) ? "[]" : "{}");
  } else if (depth > 8) {
    yield indent + title + "…";
  } else {
    if (title) yield indent + title.trimEnd();
    for (const key of Object.keys(value)) {
      const name = Array.isArray(value) ? "- " : `${visible(key, 100)}: `;
      yield* linesOf(value[key], name, depth + 1);
    }
  }
}

function compact(value) {
  // Deep nesting exhausts the stack.
  try {
    return JSON.stringify(value);
  } catch {
    return "(nested too deeply)";
  }
}

// Numbers and times

export function number(value) {
  if (!isNumber(value)) return NONE;
  const digits = Number.isInteger(value) ? 0 : Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 3;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) (value /= 1024), (unit += 1);
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export const percent = (value) => (isNumber(value) ? `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %` : NONE);

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

// Seconds in at most two units: 2 d 3 h, 4.2 s, 12 ms.
export function duration(value) {
  if (!isNumber(value)) return NONE;
  if (value < 0) return `-${duration(-value)}`;
  if (value === 0) return "0 s";
  if (value < 0.001) return `${number(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1000).toPrecision(value < 0.1 ? 2 : 3).replace(/\.0$/, "")} ms`;
  if (value < 60) return `${value < 10 ? Number(value.toFixed(1)) : Math.round(value)} s`;
  let rest = Math.round(value);
  const first = UNITS.findIndex(([, size]) => rest >= size);
  return UNITS.slice(first, first + 2)
    .map(([unit, size]) => {
      const count = Math.floor(rest / size);
      rest -= count * size;
      return count ? `${count} ${unit}` : "";
    })
    .filter(Boolean)
    .join(" ");
}

const STAMP = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)?$/;

// The daemon's timestamps are in its local time, so they are compared with its own clock only.
export function parseTime(text) {
  const match = typeof text === "string" ? STAMP.exec(text) : null;
  return match ? Date.parse(`${match[1]}T${match[2]}Z`) / 1000 + Number(match[3] ?? 0) : null;
}

// A timestamp without its microseconds, and how long ago that was by the daemon's clock, if known.
export function moment(text, now = null) {
  if (text === null || text === undefined) return NONE;
  const seconds = parseTime(text);
  if (seconds === null) return line(text, 40);
  const short = text.slice(0, 19);
  if (now === null) return short;
  const clock = now - seconds < 43200 ? short.slice(11) : short;
  return `${clock} (${since(now - seconds)})`;
}

function since(seconds) {
  if (seconds < 0) return `in ${duration(-seconds)}`;
  return seconds < 1 ? "just now" : `${duration(seconds)} ago`;
}

// How long ago a timestamp was by the daemon's clock.
export function age(text, now) {
  const seconds = parseTime(text);
  return seconds === null || now === null ? moment(text, now) : since(Math.max(0, now - seconds));
}

export const clockTime = (date) => date.toTimeString().slice(0, 8);
