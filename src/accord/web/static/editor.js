// The dialog in which an annotator writes: a better answer, a better step, what a turn should have been.

import { make } from "./dom.js";

const $ = (id) => document.getElementById(id);
let open = null;

/**
 * Open it. `given` has title, note and text; `from`, texts to start from with their labels, and which of them it starts `at`;
 * `input(text, at)` is called on each key, `save(text, at)` once it is to be kept.
 */
export function write(given) {
  open = { from: [], at: 0, ...given };
  $("editor-title").textContent = open.title;
  $("editor-note").textContent = open.note;
  $("editor-which").replaceChildren(...open.from.map(([label, text], place) =>
    make("button", { type: "button", textContent: label, onclick: () => start(place, text), aria: { role: "radio" } })));
  $("editor-text").value = open.text;
  mark();
  $("editor").showModal();
  $("editor-text").focus();
}

function start(place, text) {
  open.at = place;
  $("editor-text").value = text;
  mark();
  open.input(text, place);
}

function mark() {
  [...$("editor-which").children].forEach((one, place) => one.setAttribute("aria-checked", String(place === open.at)));
}

$("editor-text").addEventListener("input", (event) => open.input(event.target.value, open.at));
// Kept at once, not when the dialog says that it has closed: the next key may come before that.
const keep = () => open.save($("editor-text").value, open.at);
$("editor-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  $("editor").close();
  keep();
});
$("editor-form").addEventListener("submit", (event) => { if (event.submitter?.value === "send") keep(); });
