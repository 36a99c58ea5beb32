// Elements. Text only gets in as text nodes, never as markup.

import { NONE } from "./text.js";

export const $ = (selector, root = document) => root.querySelector(selector);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "click") node.addEventListener("click", value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export const button = (text, click, attributes = {}) =>
  el("button", { type: "button", click, ...attributes }, text);

// Only a change is written, so that a selection stays and a screen reader isn't told again.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// The same for a cell of a table; an empty one isn't shown where each row is a list.
export function setCell(cell, text, kind = "") {
  setText(cell, text);
  const name = text === NONE ? `none ${kind}` : kind;
  if (cell.className !== name) cell.className = name;
}

// What had the focus gives it to the heading of its section, not to the top of the page.
export function show(node, is) {
  if (node.hidden !== is) return;
  const hadFocus = !is && node.contains(document.activeElement);
  node.hidden = !is;
  if (!hadFocus) return;
  const section = node.closest("section");
  const target = section && !section.hidden ? $("h2", section) : $("#content");
  target.focus({ preventScroll: true });
}

export function note(section, text) {
  const node = $(".note", section);
  setText(node, text);
  show(node, text !== "");
}

const kept = new WeakMap();

// Makes the children of `parent` (those made here) the rows of `items`, in their order, keeping the
// nodes of rows that stay: what is focused, selected or unfolded in them stays so.
// make(item) returns {node, update(item)}.
export function keyed(parent, items, keyOf, make) {
  const before = kept.get(parent) ?? new Map();
  const rows = new Map();
  for (const item of items) {
    const key = unused(rows, String(keyOf(item)));
    const row = before.get(key) ?? make(item);
    row.update(item);
    rows.set(key, row);
  }
  kept.set(parent, rows);
  const focused = document.activeElement;
  const lost = remove(before, rows, focused);
  place(parent, [...rows.values()].map((row) => row.node));
  if (lost) refocus(parent, [...rows.values()], lost);
  else if (document.activeElement !== focused) focused.focus({ preventScroll: true });
}

// Two rows may have one name: nothing is lost.
function unused(rows, key) {
  let found = key;
  for (let count = 2; rows.has(found); count += 1) found = `${key}\n${count}`;
  return found;
}

// Removes rows that are gone; returns where the focus was, if it was in one of them.
function remove(before, rows, focused) {
  let lost = null;
  [...before].forEach(([key, row], index) => {
    if (rows.has(key)) return;
    if (row.node.contains(focused)) lost = { index, verb: focused.dataset.verb };
    row.node.remove();
  });
  return lost;
}

function place(parent, nodes) {
  let next = null;
  for (const node of nodes.toReversed()) {
    // The first row comes after what isn't a row, such as a table's head.
    if (node.parentNode !== parent || node.nextElementSibling !== next) parent.insertBefore(node, next);
    next = node;
  }
}

// The same button of the row that took the place, or the section's heading.
function refocus(parent, rows, { index, verb }) {
  const row = rows[Math.min(index, rows.length - 1)];
  const target = row && verb && $(`[data-verb="${verb}"]`, row.node);
  (target || $("h2", parent.closest("section"))).focus();
}

// A row of a table: its cells by the titles of the columns.
export function tableRow(columns) {
  const cells = columns.map((title, index) =>
    index === 0
      ? el("th", { scope: "row", role: "rowheader", "data-title": title })
      : el("td", { role: "cell", "data-title": title }),
  );
  return { node: el("tr", { role: "row" }, ...cells), cells };
}

// Pairs of a title and a text in a <dl>: [[title, text, className?], ...].
export function pairs(list, items) {
  keyed(list, items, ([title]) => title, () => {
    const [title, text] = [el("dt"), el("dd")];
    return {
      node: el("div", {}, title, text),
      update: ([name, value, kind = ""]) => {
        setText(title, name);
        setText(text, value);
        text.className = kind;
      },
    };
  });
}

// Asks in a dialog; resolves to whether it was confirmed. The browser returns the focus.
export function confirmed(title, text, verb) {
  const dialog = $("#confirm");
  setText($("#confirm-title"), title);
  setText($("#confirm-text"), text);
  setText($("#confirm-yes"), verb);
  dialog.returnValue = "";
  dialog.showModal();
  $("#confirm-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

$("#confirm-no").addEventListener("click", () => $("#confirm").close("no"));
$("#confirm-yes").addEventListener("click", () => $("#confirm").close("yes"));
