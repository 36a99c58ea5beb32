// The form that asks for a token.

import { hasToken, setToken } from "./client.js";
import { $, setText, show } from "./dom.js";
import { line } from "./text.js";

const page = document.body.classList;
let given = () => {};
// Whether the reader has asked for the form.
let isAsked = false;

// used: called when there is a token to be tried.
export function initLogin(used) {
  $("#login form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (take($("#token").value.trim())) used();
  });
  $("#use-token").addEventListener("click", () => {
    isAsked = true;
    setText($("#login-why"), "A token may give you more rights.");
    open("", true);
  });
  $("#login-cancel").addEventListener("click", () => {
    isAsked = false;
    show($("#login"), false);
    $("#use-token").focus();
  });
  $("#forget-token").addEventListener("click", () => {
    setToken(null);
    // Nothing that the token gave to see is kept.
    location.reload();
  });
}

function take(text) {
  // Others can't be sent in a header.
  if (!/^[!-~]+$/.test(text)) {
    complain("A token has letters, digits and signs of ASCII only, without spaces.");
    $("#token").select();
    return false;
  }
  $("#token").value = "";
  complain("");
  setToken(text);
  isAsked = false;
  given();
  return true;
}

export const complain = (text) => setText($("#login-error"), text);
export const isLocked = () => page.contains("locked");
export const tokenGiven = () => new Promise((resolve) => (given = resolve));

function open(error, mayCancel) {
  complain(error);
  show($("#login-cancel"), mayCancel);
  show($("#login"), true);
  $("#token").focus();
}

// Nothing is shown: the daemon refuses to answer.
export function lock({ code, message }) {
  const text = line(message, 200);
  const had = hasToken();
  setToken(null);
  page.add("locked");
  document.title = "daemonkit: token needed";
  setText($("#login-why"), "This daemon is shown to those who have a token with the right “read”.");
  open(had ? `This token isn't accepted: ${text}` : code === 403 ? text : "", false);
}

// The daemon answers. mayControl: a token could give no more rights.
export function unlock(mayControl) {
  page.remove("locked", "empty");
  show($("#forget-token"), hasToken());
  show($("#use-token"), !mayControl);
  if (!isAsked) show($("#login"), false);
}
