// The sections that only show: counters, configuration, fields, warnings, actions, alerts.

import { $, el, keyed, note, pairs, setCell, setText, show, tableRow } from "./dom.js";
import { bytes, duration, isMapping, isText, line, listOf, moment, number, outline, parseTime, textOf, visible } from "./text.js";

// Keys of /status that are shown elsewhere on the page.
const OWN = new Set([
  "actions", "alerts", "config", "events", "events_queue", "http", "juggler", "levels", "master_config",
  "name", "paused", "phase", "pid", "problems", "reload_failed", "rights", "slaves", "started", "udp", "uptime",
  "waiting_for",
]);
const FIRST = 20;
const MOST = 200;

export function drawCounters(list, status) {
  const groups = ["events", "http", "udp", "alerts"].filter((key) => isMapping(status[key]));
  // Older daemons have these instead.
  if (!groups.includes("alerts") && isMapping(status.juggler)) groups.push("juggler");
  const nodes = listOf(status.events?.nodes).filter(isMapping).slice(0, MOST);
  const rows = groups.map((key) => [key, countersOf(status[key])]);
  pairs(list, [...rows, ["nodes", nodes.map(nodeOf).join(" · ")]].filter(([, text]) => text));
}

// A daemon that shares the queue.
function nodeOf({ name, held, in_work: inWork, age }) {
  return `${visible(textOf(name), 200)}: holds ${line(held)}, ${line(inWork)} in work, heartbeat ${duration(age)} ago`;
}

function countersOf(counters, between = " · ") {
  return Object.entries(counters).slice(0, 50).flatMap(([key, value]) => {
    const name = visible(key, 60).replaceAll("_", " ");
    if (isMapping(value)) return Object.keys(value).length ? `${name}: ${countersOf(value, ", ")}` : [];
    // Lists are shown elsewhere, but for calls of the handler that hang.
    if (Array.isArray(value)) return key === "stalled" && value.length ? `${name}: ${line(value)}` : [];
    return `${name} ${valueOf(key, value)}`.replaceAll(" ", "\u00a0");
  }).join(between);
}

function valueOf(key, value) {
  if (key === "memory") return bytes(value);
  if (key === "oldest_age") return duration(value);
  return line(value === true ? "yes" : value, 100);
}

export function drawConfig(section, rows) {
  const all = listOf(rows).filter(isMapping);
  note(section, all.length ? "" : "The answer lists no configuration.");
  const table = $("table", section);
  keyed(body(table), all.slice(0, 2000), (row) => line(row.key), () => {
    const { node, cells } = tableRow(["Option", "Value", "From"]);
    return {
      node,
      update: (row) => {
        setCell(cells[0], line(row.key, 200), "text");
        setCell(cells[1], optionOf(row.value), "text");
        setCell(cells[2], line(row.origin, 200), "text");
      },
    };
  });
}

// As in the file: 5151, not 5,151.
function optionOf(value) {
  if (isText(value)) return visible(value, 2000);
  return typeof value === "object" ? line(value, 2000) : visible(String(value), 2000);
}

// A version is shown beside the name, if it is a text: it may be a field of the user's.
const isOwn = ([key, value]) => !OWN.has(key) && !(key === "version" && isText(value));

function body(table) {
  if (!table.tBodies.length) table.append(el("tbody", { role: "rowgroup" }));
  return table.tBodies[0];
}

export function drawFields(section, status) {
  const fields = isMapping(status) ? Object.entries(status).filter(isOwn) : [["(the whole status)", status]];
  note(section, fields.length > MOST ? `The first ${MOST} of ${number(fields.length)} are shown.` : fields.length ? "" : "This daemon has none of its own.");
  pairs($("dl", section), fields.slice(0, MOST).map(([key, value]) => {
    const isError = isMapping(value) && isText(value.error) && Object.keys(value).length === 1;
    return [visible(key, 100), isError ? `failed: ${visible(value.error, 1000)}` : outline(value, 60), isError ? "error" : "text"];
  }));
}

export function drawWarnings(section, records, now, all) {
  const newest = listOf(records).filter(isMapping).slice(-MOST).reverse();
  note(section, newest.length ? "" : "None since the start.");
  show($("table", section), newest.length > 0);
  const more = $("#more-warnings");
  show(more, newest.length > FIRST && !all);
  setText(more, `Show all ${newest.length}`);
  const key = (record) => `${line(record.time)} ${line(record.place)} ${line(record.message)}`;
  keyed(body($("table", section)), all ? newest : newest.slice(0, FIRST), key, (record) => makeWarning(record, now));
}

function makeWarning(record, now) {
  const { node, cells } = tableRow(["Time", "Level", "Logger", "Message"]);
  const time = el("span");
  cells[0].append(time);
  setCell(cells[1], line(record.level, 20), ["ERROR", "CRITICAL"].includes(record.level) ? "bad" : "warn");
  setCell(cells[2], line(record.logger, 100), "text");
  const place = isText(record.place) ? [el("small", {}, visible(record.place, 200))] : [];
  cells[3].className = "text";
  // A message with a stack has many lines, of which the last ones matter most.
  const [first] = textOf(record.message).split("\n", 1);
  cells[3].append(el("span", {}, line(first, 1000)), ...place);
  if (isText(record.message) && record.message.trimEnd() !== first) cells[3].append(folded("Whole message", record.message));
  if (isText(record.exception)) cells[3].append(folded("Traceback", record.exception));
  return { node, update: () => setText(time, moment(record.time, now())) };
}

function folded(title, text) {
  const lines = el("pre", { tabindex: "0", role: "group", "aria-label": title }, textOf(text));
  return el("details", {}, el("summary", {}, title), lines);
}

export function drawActions(section, actions, now) {
  const newest = listOf(actions).filter(isMapping).slice(-50).reverse();
  note(section, Array.isArray(actions) ? (newest.length ? "" : "None since the start.") : "The status lists no actions.");
  show($("table", section), newest.length > 0);
  const key = (action) => `${line(action.time)} ${line(action.action)}`;
  keyed(body($("table", section)), newest, key, (action) => {
    const { node, cells } = tableRow(["Time", "Action", "By", "Outcome"]);
    setCell(cells[1], line(action.action, 200), "text");
    setCell(cells[2], line(action.by, 100), "text");
    const mark = action.ok === false ? "✕" : "✓";
    setCell(cells[3], `${mark} ${line(action.outcome, 400)}`, action.ok === false ? "text bad" : "text");
    return { node, update: () => setText(cells[0], moment(action.time, now())) };
  });
}

// Returns how many there are, null if the daemon doesn't say.
export function drawAlerts(section, alerts, now) {
  const active = isMapping(alerts) ? alerts.active : undefined;
  const found = Array.isArray(active) ? active : isMapping(active) ? Object.entries(active) : null;
  if (found === null) return null;
  note(section, found.length ? "" : "None.");
  pairs($("dl", section), found.slice(0, MOST).map((alert) => alertOf(alert, now)));
  return found.length;
}

function alertOf(alert, now) {
  if (!isMapping(alert)) return [line(alert, 200), ""];
  const { service, status, description, ...rest } = alert;
  const more = Object.entries(rest).filter(([, value]) => value !== null).map(([key, value]) =>
    `${visible(key, 60)} ${parseTime(value) === null ? line(value, 200) : moment(value, now)}`);
  return [line(service, 200), [`${line(status, 20)}: ${line(description, 1000)}`, ...more].join("\n"), "error"];
}
