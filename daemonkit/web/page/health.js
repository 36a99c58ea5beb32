// The daemon's health in one line.

import { clockTime, isMapping, isText, line, lines, listOf, moment, visible } from "./text.js";

export const MARKS = { good: "✓", warn: "▲", bad: "✕", unknown: "?" };

// Returns [kind, word, reason]. known: {status, ping, answered, trouble}, see page.js.
export function healthOf({ status, ping, answered, trouble }, isStale) {
  if (status === null) {
    return trouble ? ["bad", "No answer", `from the daemon: ${trouble}`] : ["unknown", "Loading", ""];
  }
  if (isStale) return ["bad", `No answer since ${clockTime(answered)}`, staleness(status, trouble)];
  const problems = listOf(status.problems).map((problem) => line(problem, 300));
  if (isText(status.phase) && status.phase !== "running") {
    const waiting = listOf(status.waiting_for).length ? [`waiting for ${lines(status.waiting_for)}`] : [];
    const word = visible(status.phase[0].toUpperCase() + status.phase.slice(1), 40);
    return [problems.length ? "bad" : "warn", word, bounded([...waiting, ...problems].join("; "))];
  }
  const paused = pausedOf(status.paused);
  if (problems.length) {
    const all = paused ? [...problems, `paused: ${paused}`] : problems;
    return ["bad", problems.length === 1 ? "Problem" : `${problems.length} problems`, bounded(all.join("; "))];
  }
  if (ping && ping.code !== 200) {
    return ["bad", "Problem", `the health check answers ${ping.code || ""} ${line(ping.text.trim(), 300)}`];
  }
  if (paused) return ["warn", "Paused", paused];
  if (isText(status.phase)) return ["good", "OK", ""];
  return ping ? ["good", "OK", "says the health check"] : ["unknown", "Unknown", "the status doesn't say"];
}

function staleness({ phase }, trouble) {
  const was = isText(phase) && phase !== "running" ? ` It was ${visible(phase, 40)} then.` : "";
  return `${trouble ? `(${trouble}). ` : ""}What is shown is from then.${was}`;
}

const bounded = (text) => (text.length > 900 ? `${text.slice(0, 900)}…` : text);

// What is paused, since when and by whom; "" if nothing is.
export function pausedOf(paused) {
  if (!isMapping(paused)) return "";
  const slaves = isMapping(paused.slaves) ? Object.entries(paused.slaves) : [];
  const all = [...(paused.events ? [["events", paused.events]] : []), ...slaves];
  return bounded(all.map(([name, how]) => visible(name, 100) + byWhom(how)).join("; "));
}

function byWhom(how) {
  return isMapping(how) ? ` (by ${line(how.by, 100)} since ${moment(how.since)})` : "";
}
