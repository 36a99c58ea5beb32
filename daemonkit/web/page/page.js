// The loop that asks the daemon, and what is said about its health.

import { NoAnswer, ask, askPing } from "./client.js";
import { act, initActions, say } from "./control.js";
import { $, note, pairs, setText, show } from "./dom.js";
import { FailedEvents } from "./failed.js";
import { MARKS, healthOf, pausedOf } from "./health.js";
import { drawActions, drawAlerts, drawConfig, drawCounters, drawFields, drawWarnings } from "./lists.js";
import { complain, initLogin, isLocked, lock, tokenGiven, unlock } from "./login.js";
import { History, drawPlots } from "./plots.js";
import { drawSlaves } from "./slaves.js";
import { clockTime, duration, isMapping, isNumber, isText, line, lines, listOf, moment, number, parseTime, textOf, visible } from "./text.js";

const INTERVAL = 2000;
// An answer that is older isn't news any more.
const FRESH = INTERVAL + 3000;
const RETRY_MISSING = 60_000;

const state = {
  // The status, and when it was answered by this machine's clock.
  status: null,
  answered: null,
  process: null,
  // Why there is no answer now, "" if there is one.
  trouble: "",
  ping: null,
  allWarnings: false,
};
const history = new History();
const failed = new FailedEvents($("#failed"), daemonTime, () => refresh("failed"));
let awake = () => {};
let isHurried = false;

// The daemon's local time in seconds, comparable with its timestamps; null if it isn't known.
function daemonTime() {
  const { started, uptime } = state.status ?? {};
  const begun = parseTime(started);
  return begun !== null && isNumber(uptime) ? begun + uptime : null;
}

// What else is asked for, and how often (in milliseconds).
const sources = [
  { name: "plots", path: () => history.path, every: 0, draw: (answer) => drawPlots($("#plots"), history, addHistory(answer)) },
  { name: "failed", path: () => failed.path, every: 10_000, draw: drawFailed },
  { name: "warnings", path: () => "status/warnings", every: 6000, draw: drawWarningList },
  { name: "config", path: () => "status/config", every: 60_000, draw: (answer) => drawConfig($("#config"), answer) },
];
for (const source of sources) source.due = 0;
let pingDue = 0;
let records = null;

function expire(...names) {
  for (const source of sources) if (names.includes(source.name)) source.due = 0;
}

function refresh(...names) {
  expire(...names);
  wake();
}

function addHistory(answer) {
  // It may be a new process's, if that was started since the status was asked for.
  if (isMapping(answer) && isNumber(answer.pid) && isNumber(state.status?.pid) && answer.pid !== state.status.pid) return "";
  return history.add(answer);
}

function drawFailed(answer) {
  failed.draw(answer);
  countInNav("failed", "Failed events", failed.total);
}

function drawWarningList(answer = records) {
  records = answer;
  drawWarnings($("#warnings"), records, daemonTime, state.allWarnings);
}

// The loop

async function run() {
  for (;;) {
    await whenVisible();
    const isLet = await poll();
    if (!isLet) await tokenGiven();
    else await pause(INTERVAL);
  }
}

function whenVisible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
  }).then(whenVisible);
}

// Until the time is over, or something is to be asked for at once: also if that was said before.
function pause(milliseconds) {
  return new Promise((resolve) => {
    awake = resolve;
    setTimeout(resolve, isHurried ? 0 : milliseconds);
    isHurried = false;
  });
}

function wake() {
  isHurried = true;
  awake();
}

// Asks for everything that is due; returns false if a token is needed.
async function poll() {
  try {
    const answer = await ask("status");
    if (answer.code === 401 || answer.code === 403) {
      lock(answer);
      return false;
    }
    if (answer.code !== 200) throw new NoAnswer(`HTTP ${answer.code}, ${line(answer.message, 200)}`);
    accept(answer.message);
    await pollHealthCheck();
    for (const source of sources) await pollSource(source);
  } catch (error) {
    state.trouble = told(error);
    if (isLocked()) complain(`No answer: ${state.trouble}`);
  }
  drawHealth();
  return true;
}

// A mistake in the page must not look as if all were well, nor end the loop.
function told(error) {
  if (error instanceof NoAnswer) return error.message;
  console.error(error);
  return `this page failed: ${line(error.message, 200)}`;
}

// The user's own check may know more than the status does.
async function pollHealthCheck() {
  const { phase, problems } = state.status;
  const isKnown = listOf(problems).length > 0 || (isText(phase) && phase !== "running");
  if (isKnown || Date.now() < pingDue) return;
  pingDue = Date.now() + 10_000;
  try {
    state.ping = await askPing();
  } catch (error) {
    state.ping = { code: 0, text: `no answer: ${error.message}` };
  }
  drawHealth();
}

async function pollSource(source) {
  if (Date.now() < source.due) return;
  const section = $(`#${source.name}`);
  source.due = Date.now() + source.every;
  try {
    const answer = await ask(source.path(), { seconds: 5 });
    // An older daemon doesn't have it.
    showSection(source.name, answer.code !== 404);
    if (answer.code === 404) source.due = Date.now() + RETRY_MISSING;
    else if (answer.code !== 200) throw new NoAnswer(line(answer.message, 200));
    else {
      source.draw(answer.message);
      source.answered = new Date();
    }
  } catch (error) {
    const from = source.answered ? ` What is shown is from ${clockTime(source.answered)}.` : "";
    note(section, `This can't be loaded now: ${told(error)}.${from}`);
  }
}

function showSection(name, is) {
  show($(`#${name}`), is);
  show($(`nav a[href="#${name}"]`).parentNode, is);
}

// What was answered

function accept(status) {
  const before = state.status;
  const known = isMapping(status) ? status : {};
  const process = JSON.stringify([known.pid, known.started]);
  const isOther = state.process !== null && process !== state.process;
  Object.assign(state, { status: known, process, answered: new Date(), trouble: "" });
  const may = listOf(known.rights).includes("control");
  document.body.classList.toggle("may-control", may);
  unlock(may);
  if (isOther) begin(before ?? {});
  const counts = ["failed", "retrying", "dead"].map((key) => known.events?.[key]).join();
  // Asked for again only when it has changed.
  if (counts !== state.counts) expire("failed");
  const config = JSON.stringify([known.config, known.master_config]);
  if (config !== state.config) expire("config");
  Object.assign(state, { counts, config });
  draw(status, known);
  // A wrong token isn't refused where none is needed.
  if (state.isNewToken) say(`With this token you have the right to ${lines(known.rights) || "nothing"}.`);
  state.isNewToken = false;
}

// Another process answers: nothing of the old one is kept.
function begin(before) {
  $("#confirm").close("no");
  history.clear();
  failed.clear();
  records = null;
  state.ping = null;
  pingDue = 0;
  expire(...sources.map((source) => source.name));
  for (const pre of document.querySelectorAll("#stacks, .stack")) show(pre, false);
  const text = `Since ${clockTime(state.answered)} another process answers: ${processOf(state.status)}, before ${processOf(before)}. The plots start anew.`;
  setText($("#replaced span"), text);
  show($("#replaced"), true);
  speak(text);
}

const processOf = ({ pid, started }) => `pid ${isNumber(pid) ? pid : line(pid, 40)} (started ${moment(started)})`;

function draw(whole, status) {
  setText($("#name"), isText(status.name) ? visible(status.name, 100) : "daemonkit");
  setText($("#facts"), factsOf(status));
  drawHealth();
  attempt("plots", () => drawCounters($("#plots .counters"), status));
  attempt("slaves", (section) => drawSlaves(section, status.slaves, daemonTime));
  attempt("control", () => drawControl(status));
  attempt("fields", (section) => drawFields(section, whole));
  attempt("warnings", () => records && drawWarningList());
  attempt("actions", (section) => drawActions(section, status.actions, daemonTime));
  attempt("alerts", (section) => {
    const count = drawAlerts(section, status.alerts, daemonTime());
    showSection("alerts", count !== null);
    countInNav("alerts", "Alerts", count);
  });
}

// A section that fails keeps no other from being shown.
function attempt(name, drawSection) {
  const section = $(`#${name}`);
  try {
    drawSection(section);
  } catch (error) {
    note(section, `This can't be shown: ${told(error)}.`);
  }
}

function countInNav(name, title, count) {
  setText($(`nav a[href="#${name}"]`), count > 0 ? `${title} (${number(count)})` : title);
}

function factsOf(status) {
  return [
    isNumber(status.uptime) && `up ${duration(Math.floor(status.uptime))}`,
    isText(status.started) && `since ${moment(status.started)}`,
    isNumber(status.pid) && `pid ${status.pid}`,
    isText(status.version) && `version ${visible(status.version, 60)}`,
  ].filter(Boolean).join(" · ");
}

// Health

function isStale() {
  return state.trouble !== "" || Date.now() - state.answered > FRESH;
}

let spoken = "";

function drawHealth() {
  const isGone = state.status !== null && isStale();
  const [kind, word, reason] = healthOf(state, isGone);
  $("#health").className = kind;
  setText($("#mark"), MARKS[kind]);
  setText($("#word"), word);
  setText($("#reason"), reason);
  // That line is out of sight further down, the navigation isn't.
  setText($("#nav-health"), `${MARKS[kind]} ${word}`);
  $("#nav-health").className = kind;
  document.body.classList.toggle("stale", isGone);
  if (!isLocked()) document.title = `${MARKS[kind]} ${$("#name").textContent}: ${word}`;
  const seconds = INTERVAL / 1000;
  setText($("#freshness"), state.answered && !isGone ? `Updated ${clockTime(state.answered)}, every ${seconds} s while this tab is visible` : "");
  const news = `${word}. ${reason}`;
  if (spoken && news !== spoken && state.status !== null) speak(news);
  spoken = news;
}

function speak(text) {
  setText($("#spoken"), text);
}

// Control

function drawControl(status) {
  const may = document.body.classList.contains("may-control");
  setText($("#rights"), may ? "" : rightsOf(status.rights));
  show($("#rights"), !may);
  const events = isMapping(status.paused) ? status.paused.events : undefined;
  setText($("#pause-events"), events ? "Resume events" : "Pause events");
  const levels = listOf(status.levels).filter(isMapping).slice(0, 50);
  pairs($("#control-state"), [
    ["Paused", pausedOf(status.paused) || "nothing"],
    ["Log levels", levels.map(levelOf).join("\n") || "as configured"],
    ...(isMapping(status.reload_failed) ? [["Reload", failureOf(status.reload_failed), "error"]] : []),
  ]);
}

function rightsOf(rights) {
  if (!Array.isArray(rights)) return "There are no buttons: the status doesn't say that you have the right “control”.";
  return `There are no buttons: you have the right to ${lines(rights) || "nothing"}, not to control. A token may give it.`;
}

function failureOf({ time, error }) {
  return `failed ${moment(time, daemonTime())}, the old configuration stays: ${line(error, 1000)}`;
}

function levelOf({ logger, level, until, by }) {
  const end = until ? ` until ${moment(until, daemonTime())}` : " until the daemon stops";
  return `${line(logger, 100)}: ${line(level, 20)}${end} (by ${line(by, 100)})`;
}

function connectControl() {
  initActions(
    (verb) => refresh(...(["retry", "drop"].includes(verb) ? ["failed"] : []), ...(verb === "reload" ? ["config"] : [])),
    () => (state.status === null || isStale() ? "the daemon doesn't answer" : ""),
  );
  $("#pause-events").addEventListener("click", (event) => {
    act(event.target.textContent === "Resume events" ? "resume" : "pause", { events: true });
  });
  $("#reload").addEventListener("click", () => act("reload", {}));
  $("#stop").addEventListener("click", () => act("stop", {}, {
    title: `Stop ${$("#name").textContent}?`,
    text: `The process ${processOf(state.status)} ends as after SIGTERM. From here it can't be started again.`,
    yes: "Stop it",
  }));
  $("#all-stacks").addEventListener("click", async () => {
    const answer = await act("stacks", {});
    if (!answer) return;
    setText($("#stacks"), textOf(answer.message));
    show($("#stacks"), true);
  });
  $("#level").addEventListener("submit", (event) => {
    event.preventDefault();
    const [logger, time] = [$("#level-logger").value.trim(), $("#level-for").value];
    act("level", { level: $("#level-name").value, ...(logger && { logger }), ...(time && { for: time }) });
  });
}

// The start

function connect() {
  connectControl();
  initLogin(() => {
    state.isNewToken = true;
    wake();
  });
  $("#replaced button").addEventListener("click", () => show($("#replaced"), false));
  $("#more-warnings").addEventListener("click", () => {
    state.allWarnings = true;
    drawWarningList();
    $("#warnings-title").focus();
  });
  // Also while no answer comes, and after a time in which the tab was hidden.
  setInterval(drawHealth, 1000);
  document.addEventListener("visibilitychange", drawHealth);
}

connect();
run();
