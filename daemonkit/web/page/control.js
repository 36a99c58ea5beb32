// Actions: each is sent once, and its answer is shown.

import { NoAnswer, ask } from "./client.js";
import { $, confirmed, setText, show } from "./dom.js";
import { clockTime, visible } from "./text.js";

// Shorter than two wanted clicks, longer than a double click or a held key.
const PAUSE = 600;
const running = new Set();
let last = -PAUSE;
let after = () => {};
let blocked = () => "";

// done: called after each action; why: returns why none can be sent now, "" if they can.
export function initActions(done, why) {
  [after, blocked] = [done, why];
  $("#outcome button").addEventListener("click", () => say(""));
}

export function say(text, isError = false) {
  // With the time, a second answer of the same words is announced, too.
  setText($("#outcome p"), text && `${clockTime(new Date())} ${text}`);
  show($("#outcome button"), text !== "");
  $("#outcome").className = isError ? "bad" : "";
}

// Sends an action, after a confirmation if `asks` is {title, text, yes}. Resolves to the answer, or
// null if there is none.
export async function act(verb, body, asks = null) {
  const key = JSON.stringify([verb, body]);
  const now = performance.now();
  if (running.has(key) || now - last < PAUSE || $("#confirm").open) return null;
  last = now;
  running.add(key);
  try {
    if (asks && !blocked() && !(await confirmed(asks.title, asks.text, asks.yes))) return null;
    last = performance.now();
    if (!blocked()) return await send(verb, body);
    say(`Not sent: ${blocked()}`, true);
    return null;
  } finally {
    running.delete(key);
  }
}

async function send(verb, body) {
  const what = visible([verb, body.slave, body.logger, body.level].filter(Boolean).join(" "), 100);
  try {
    const answer = await ask(`control/${verb}`, { body, seconds: 30 });
    const isDone = answer.code === 200;
    const text = typeof answer.message === "string" ? answer.message : isDone ? "done" : `HTTP ${answer.code}`;
    // What is asked for to be shown is shown in its place.
    const isShown = isDone && (verb === "stacks" || verb === "show");
    say(`${what}: ${isShown ? "shown" : visible(text)}`, !isDone);
    return isDone ? answer : null;
  } catch (error) {
    if (!(error instanceof NoAnswer)) throw error;
    say(`${what}: no answer (${error.message}); it may have been done or not`, true);
    return null;
  } finally {
    after(verb);
  }
}
