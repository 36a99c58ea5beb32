// The table of slaves, with what can be done to each.

import { act } from "./control.js";
import { $, button, el, keyed, note, setCell, setText, show, tableRow } from "./dom.js";
import { NONE, age, duration, isMapping, isNumber, isText, line, lines, listOf, moment, number, outline, textOf, visible } from "./text.js";

const COLUMNS = ["Slave", "State", "Restarts", "Heartbeat", "Calls", "Last error", "Actions"];
const KNOWN = new Set([
  "name", "started", "state", "restarts", "last_error", "last_heartbeat", "last_restarts", "owner",
  "bound_to", "group", "ticks", "next_restart_in", "paused", "every", "next_call_in", "last_call",
  "last_success", "last_duration", "error",
]);
const MOST = 500;
// Shape and word differ, not only the colour.
const STATES = new Map([
  ["running", ["good", "●"]], ["finished", ["quiet", "✓"]], ["stopped", ["quiet", "■"]],
  ["starting", ["warn", "◌"]], ["stopping", ["warn", "◌"]], ["waiting", ["warn", "◌"]],
  ["backing off", ["warn", "▲"]], ["stalled", ["bad", "▲"]], ["failed", ["bad", "✕"]],
]);

export function drawSlaves(section, slaves, now) {
  const all = listOf(slaves);
  note(section, noteOf(slaves, all));
  show($("table", section), all.length > 0);
  keyed($("table", section), all.slice(0, MOST), nameOf, (slave) => makeSlave(slave, () => now()));
}

function noteOf(slaves, all) {
  if (!Array.isArray(slaves)) return "The status lists no slaves.";
  if (all.length === 0) return "This daemon has no slaves.";
  return all.length > MOST ? `The first ${MOST} of ${number(all.length)} are shown.` : "";
}

const nameOf = (slave) => (isMapping(slave) && isText(slave.name) ? slave.name : "");

function makeSlave(first, now) {
  const name = nameOf(first);
  const title = visible(name, 100) || "(without a name)";
  const { node: row, cells } = tableRow(COLUMNS);
  const details = makeDetails(name, title);
  const node = el("tbody", { role: "rowgroup" }, row, details.node);
  cells[0].append(el("span", { class: "name" }, title), el("small"));
  const paused = addButtons(cells[6], name, title, details);
  const update = (slave) => {
    const known = isMapping(slave) ? slave : {};
    showState(cells[1], known);
    setText($("small", cells[0]), relations(known));
    setCell(cells[2], restartsOf(known));
    setCell(cells[3], age(known.last_heartbeat, now()));
    setCell(cells[4], callsOf(known, now()));
    setCell(cells[5], errorOf(known, now()), "text");
    paused(known);
    details.update(slave, now());
  };
  return { node, update };
}

function showState(cell, { state, paused }) {
  const [kind, mark] = STATES.get(state) ?? ["quiet", "?"];
  const text = `${mark} ${line(state, 60)}${paused === true ? ", paused" : ""}`;
  setCell(cell, text, `state ${paused === true && kind === "good" ? "warn" : kind}`);
}

function relations({ owner, bound_to, group }) {
  return [
    isText(owner) && `started by ${visible(owner, 100)}`,
    listOf(bound_to).length > 0 && `bound to ${lines(bound_to)}`,
    isText(group) && `group ${visible(group, 100)}`,
  ].filter(Boolean).join("; ");
}

function restartsOf({ restarts, next_restart_in }) {
  const next = isNumber(next_restart_in) ? `, next in ${duration(next_restart_in)}` : "";
  return line(restarts, 40) + next;
}

function callsOf(slave, now) {
  if (!isNumber(slave.every)) return NONE;
  return [
    `every ${duration(slave.every)}`,
    isNumber(slave.next_call_in) && slave.paused !== true && `next in ${duration(slave.next_call_in)}`,
    isNumber(slave.last_duration) && `took ${duration(slave.last_duration)}`,
    isText(slave.last_success) && `last success ${age(slave.last_success, now)}`,
  ].filter(Boolean).join(", ");
}

function errorOf({ last_error: failure, error }, now) {
  // Its status() failed; what is shown is what the daemon knows.
  const own = isText(error) ? `status() failed: ${visible(error, 300)} ` : "";
  if (failure === null || failure === undefined) return own || NONE;
  if (!isMapping(failure)) return own + line(failure, 300);
  return `${own}${line(failure.error, 300)}\n${line(failure.place, 200)}, ${moment(failure.time, now)}`;
}

// Returns what adapts the buttons to the slave's state.
function addButtons(cell, name, title, details) {
  const toggle = button("Details", () => details.toggle(toggle), { "aria-expanded": "false", "data-verb": "details" });
  toggle.setAttribute("aria-label", `Details of ${title}`);
  cell.append(toggle);
  // Without a name it can't be addressed.
  if (!name) return () => {};
  const add = (text, click, verb) => {
    const made = button(text, click, { class: "control", "data-verb": verb, "aria-label": `${text} ${title}` });
    cell.append(" ", made);
    return made;
  };
  add("Restart", () => act("restart", { slave: name }, {
    title: `Restart ${title}?`,
    text: "It is asked to stop, and started again once it has stopped.",
    yes: "Restart",
  }), "restart");
  const runNow = add("Run now", () => act("run-now", { slave: name }), "run-now");
  let isPaused = false;
  const pause = add("Pause", () => act(isPaused ? "resume" : "pause", { slave: name }), "pause");
  return (slave) => {
    isPaused = slave.paused === true;
    const isPeriodic = isNumber(slave.every);
    show(runNow, isPeriodic);
    show(pause, isPeriodic || isPaused);
    setText(pause, isPaused ? "Resume" : "Pause");
    pause.setAttribute("aria-label", `${isPaused ? "Resume" : "Pause"} ${title}`);
  };
}

function makeDetails(name, title) {
  const text = el("pre", { tabindex: "0", role: "group", "aria-label": `Details of ${title}` });
  const stack = el("pre", { class: "stack", tabindex: "0", role: "group", "aria-label": `Stack of ${title}`, hidden: "" });
  const load = button("Show its stack now", async () => {
    const answer = await act("stacks", { slave: name });
    if (answer) {
      setText(stack, textOf(answer.message));
      show(stack, true);
    }
  }, { class: "control", "data-verb": "stack" });
  const cell = el("td", { colspan: COLUMNS.length, role: "cell" }, text, ...(name ? [load] : []), stack);
  const node = el("tr", { role: "row", class: "details", hidden: "" }, cell);
  return {
    node,
    toggle(control) {
      show(node, node.hidden);
      control.setAttribute("aria-expanded", String(!node.hidden));
    },
    update: (slave, now) => setText(text, describe(slave, now)),
  };
}

function describe(slave, now) {
  if (!isMapping(slave)) return `Its status() isn't a mapping:\n${outline(slave)}`;
  const own = Object.entries(slave).filter(([key]) => !KNOWN.has(key));
  const restarts = listOf(slave.last_restarts).slice(-10).map((one) =>
    isMapping(one) ? `${moment(one.time, now)}: ${line(one.reason, 300)}` : line(one, 300));
  return [
    `Started: ${moment(slave.started, now)}`,
    isNumber(slave.ticks) && `Calls: ${number(slave.ticks)}, last ${moment(slave.last_call, now)}`,
    isMapping(slave.last_error) && `Last error: ${textOf(slave.last_error.error)}`,
    restarts.length > 0 && `Last restarts:\n  ${restarts.join("\n  ")}`,
    own.length > 0 && outline(Object.fromEntries(own)),
  ].filter(Boolean).join("\n");
}
