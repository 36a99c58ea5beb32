// Requests to the daemon, and the token that they carry.

// The page may be behind a proxy, below a prefix: addresses are relative to this file's.
const BASE = new URL("../", import.meta.url);
// Daemons behind one proxy share the storage.
const KEY = `daemonkit token ${BASE.pathname}`;
let token = stored();

function stored() {
  // The storage may be forbidden.
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

export const hasToken = () => token !== null;

export function setToken(value) {
  token = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    // Then it is kept until the page is closed.
  }
}

// No usable answer; the message says why.
export class NoAnswer extends Error {}

// Resolves to {code, message, ...} of the JSON answer, whatever its code; rejects with NoAnswer.
export async function ask(path, { body, seconds = 10 } = {}) {
  const headers = { Accept: "application/json" };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const { code, text } = await send(path, seconds, {
    method: body === undefined ? "GET" : "POST",
    body: body === undefined ? undefined : JSON.stringify(body),
    headers,
    // Not followed: to a login page of a proxy, for example, perhaps of another origin.
    redirect: "error",
    cache: "no-store",
  });
  return { code, ...parse(code, text) };
}

// The health check's text, which may be anything.
export const askPing = () => send("ping", 5, { cache: "no-store", redirect: "error" });

async function send(path, seconds, options) {
  try {
    const signal = AbortSignal.timeout(seconds * 1000);
    const response = await fetch(new URL(path, BASE), { ...options, signal });
    return { code: response.status, text: await response.text() };
  } catch (error) {
    throw new NoAnswer(error.name === "TimeoutError" ? `none within ${seconds} s` : "no connection");
  }
}

function parse(code, text) {
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // A proxy's own page, for example.
  }
  if (typeof answer === "object" && answer !== null && "message" in answer) return answer;
  throw new NoAnswer(`HTTP ${code}, and not the daemon's JSON`);
}
