// Dead letters, and events that wait for a retry.

import { act } from "./control.js";
import { $, button, el, keyed, note, setCell, setText, show, tableRow } from "./dom.js";
import { isMapping, isNumber, line, listOf, moment, number, textOf, visible } from "./text.js";

const COLUMNS = ["Event", "Attempts", "First failed", "Last failed", "Error", "Actions"];
const LIMIT = 20;

export class FailedEvents {
  // now: returns the daemon's time; reload: loads the list again.
  constructor(section, now, reload) {
    [this.section, this.now, this.reload] = [section, now, reload];
    this.filter = { state: "dead", error: "" };
    // What the pages before this one end with, and this one begins after.
    this.before = [];
    this.shown = { events: [], count: null, more: false };
    // Of all dead letters, as far as it is known.
    this.total = 0;
    $("form", section).addEventListener("submit", (event) => {
      event.preventDefault();
      this.apply();
    });
    $("#failed-state").addEventListener("change", () => this.apply());
    $("#failed-older").addEventListener("click", () => this.turn(1));
    $("#failed-newer").addEventListener("click", () => this.turn(-1));
    $("#retry-all").addEventListener("click", () => this.actOnAll("retry"));
    $("#drop-all").addEventListener("click", () => this.actOnAll("drop"));
  }

  get path() {
    const query = new URLSearchParams({ state: this.filter.state, limit: LIMIT });
    if (this.filter.error) query.set("error", this.filter.error);
    if (this.before.length) query.set("before", this.before.at(-1));
    return `status/failed?${query}`;
  }

  clear() {
    this.before = [];
    this.draw({ events: [], count: null, more: false });
    setText($("#failed-count"), "");
  }

  apply() {
    this.filter = { state: $("#failed-state").value, error: $("#failed-error").value };
    this.before = [];
    this.reload();
  }

  turn(direction) {
    if (direction < 0) this.before.pop();
    else this.before.push(this.shown.events.at(-1)?.id);
    this.reload();
    $("h2", this.section).focus();
  }

  draw(answer) {
    const events = listOf(answer?.events).filter(isMapping);
    // The page was emptied: the one before it is looked at.
    if (events.length === 0 && this.before.length) {
      this.before = [];
      this.reload();
      return;
    }
    this.shown = { events, count: answer?.count, more: answer?.more === true };
    if (this.filter.state === "dead" && !this.filter.error) this.total = this.shown.count ?? 0;
    note(this.section, Array.isArray(answer?.events) ? "" : "The answer lists no events.");
    setText($("#failed-count"), this.summary());
    show($("table", this.section), events.length > 0);
    show($("#failed-newer"), this.before.length > 0);
    show($("#failed-older"), this.shown.more);
    for (const control of [$("#retry-all"), $("#drop-all")]) show(control, events.length > 0);
    keyed($("table", this.section), events, (event) => `${line(event.state)} ${String(event.id)}`, (event) => this.makeEvent(event));
  }

  summary() {
    const { events, count } = this.shown;
    const plural = count === 1 ? "" : "s";
    const kind = this.filter.state === "dead" ? `dead letter${plural}` : `event${plural} waiting for a retry`;
    const matching = this.filter.error ? ` whose error contains “${visible(this.filter.error, 100)}”` : "";
    if (events.length === 0) return `No ${kind}${matching}.`;
    const total = isNumber(count) ? number(count) : "an unknown number of";
    const range = count === events.length ? "" : `, of which ${number(events.length)} are shown${this.before.length ? ", older ones" : ""}`;
    return `${total} ${kind}${matching}${range}.`;
  }

  actOnAll(verb) {
    const { state, error } = this.filter;
    const asked = this.summary().replace(/, of which.*/, "").replace(/\.$/, "");
    const effect = verb === "retry" ? "They are put on the queue again." : "They are deleted, which can't be undone.";
    act(verb, { all: true, state, ...(error ? { error } : {}) }, {
      title: `${verb === "retry" ? "Retry" : "Drop"} ${asked}?`,
      text: `${effect} Also those that have failed since this list was loaded.`,
      yes: verb === "retry" ? "Retry them" : "Drop them",
    });
  }

  makeEvent({ id, state }) {
    const { node: row, cells } = tableRow(COLUMNS);
    const event = preOf(`Event ${id}`);
    const traceback = preOf(`Traceback of event ${id}`);
    const hidden = el("p", { class: "muted" });
    const load = button("Show the event", () => this.load(id, fill), { class: "control", "data-verb": "show" });
    const details = el("tr", { role: "row", class: "details", hidden: "" },
      el("td", { colspan: COLUMNS.length, role: "cell" }, hidden, load, event, traceback));
    let whole = null;
    const fill = (shown) => {
      whole = shown ?? whole;
      const known = "event" in whole;
      show(load, !known);
      setText(hidden, received(whole, this.now()) + (known ? "" : " While reading needs no token, the event and its traceback are hidden."));
      for (const [pre, value] of [[event, whole.event], [traceback, whole.traceback]]) {
        setText(pre, value === undefined ? "" : textOf(value));
        show(pre, pre.textContent !== "");
      }
    };
    this.addButtons(cells[5], id, state, details);
    const update = (shown) => {
      // What was asked for is kept, but not longer than it is true.
      if (whole === null || "event" in shown || whole.attempts !== shown.attempts) fill(shown);
      this.fillCells(cells, shown);
    };
    return { node: el("tbody", { role: "rowgroup" }, row, details), update };
  }

  fillCells(cells, shown) {
    const now = this.now();
    const due = shown.due ? `, next ${moment(shown.due, now)}` : "";
    const texts = [visible(String(shown.id), 40), line(shown.attempts, 40) + due, moment(shown.first_failed, now),
      moment(shown.last_failed, now), line(shown.error, 300)];
    texts.forEach((text, i) => setCell(cells[i], text, i === 4 ? "text" : ""));
  }

  addButtons(cell, id, state, details) {
    const name = `event ${visible(String(id), 40)}`;
    const toggle = button("Details", () => {
      show(details, details.hidden);
      toggle.setAttribute("aria-expanded", String(!details.hidden));
    }, { "aria-expanded": "false", "aria-label": `Details of ${name}`, "data-verb": "details" });
    const retry = button("Retry", () => act("retry", { ids: [id] }),
      { class: "control", "aria-label": `Retry ${name}`, "data-verb": "retry" });
    const drop = button("Drop", () => act("drop", { ids: [id] }, {
      title: `Drop ${name}?`,
      text: `${state === "retrying" ? "It isn't tried again, and deleted" : "It is deleted"}, which can't be undone.`,
      yes: "Drop it",
    }), { class: "control danger", "aria-label": `Drop ${name}`, "data-verb": "drop" });
    cell.append(toggle, " ", retry, " ", drop);
  }

  async load(id, fill) {
    const answer = await act("show", { id });
    if (answer && isMapping(answer.message)) fill(answer.message);
  }
}

const preOf = (label) => el("pre", { tabindex: "0", role: "group", "aria-label": label, hidden: "" });
const received = (event, now) => (event.received ? `Received ${moment(event.received, now)}.` : "");
