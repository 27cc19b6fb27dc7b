// The page for judging: fetches a task, shows it by its kind, keeps drafts, sends answers, takes them back.

import { ask, flush, fresh, put, waiting } from "./client.js";
import { button, conversation, LETTERS, make, say } from "./dom.js";
import { write } from "./editor.js";
import * as pair from "./pair.js";
import * as ranking from "./ranking.js";
import * as rating from "./rating.js";
import * as rewrite from "./rewrite.js";
import * as steps from "./steps.js";
import * as turns from "./turns.js";

const KINDS = { pair, ranking, rating, steps, edit: rewrite, chat: turns };
const NAMES = { pair: "Two answers to compare", ranking: "Answers to rank", rating: "An answer to rate", steps: "A solution to check", edit: "An answer to rewrite", chat: "A conversation to judge" };
const IDLE = {
  calibration: "You have done the first tasks that everybody does. Work goes on once all have compared notes.",
  wait: "What is left is with others just now. This page asks again every 20 seconds.",
  done: "Nothing is left for you. Thank you.",
  ended: "This round is over. Thank you.",
  empty: "There are no tasks yet.",
};
const COMMON = [
  ["s", "skip or report, with a reason"],
  ["u", "take your last answer back"],
  ["r", "write a reason for your choice"],
  ["?", "this list"],
];
const $ = (id) => document.getElementById(id);
let now = null; // { assignment, view, since, away, rationale, edit }
let busy = false;

function told(left) {
  $("offline").hidden = left === 0;
  $("offline").textContent = left ? `${left} answer${left > 1 ? "s are" : " is"} kept here and not sent yet: no connection. Trying again …` : "";
}

// -- drafts ---------------------------------------------------------------------------------------------------------------------------

const place = (assignment) => `accord.draft.${assignment.task}.${assignment.token}`;
let later = 0;

function draft() {
  return { kind: now.assignment.kind, rationale: now.rationale, edit: now.edit, ...now.view.draft() };
}

function changed() {
  localStorage.setItem(place(now.assignment), JSON.stringify(draft()));
  clearTimeout(later);
  later = setTimeout(async () => {
    if (!now) return;
    try {
      await ask("draft", { task: now.assignment.task, token: now.assignment.token, draft: draft() });
    } catch (error) {
      if (error.code !== "network") say(error.message, true);
    }
  }, 300);
}

function before(assignment) {
  const here = localStorage.getItem(place(assignment));
  return here ? JSON.parse(here) : assignment.draft;
}

// -- a task ---------------------------------------------------------------------------------------------------------------------------

function show(found) {
  $("task").setAttribute("aria-busy", "false");
  if (!found.assignment) {
    now = null;
    const compared = found.reason === "calibration" ? [" ", make("a", { href: "/calibration", textContent: "Where people differ" })] : [];
    $("task").replaceChildren(make("p", { className: "notice" }, IDLE[found.reason] || "", ...compared),
      make("p", { className: "row" }, button("Take the last answer back", "u", undo)));
    if (found.reason === "wait" || found.reason === "calibration") setTimeout(() => now || next(), 20000);
    return;
  }
  const assignment = found.assignment;
  const earlier = before(assignment) || {};
  const kind = KINDS[assignment.kind];
  if (!kind) return say(`This release cannot show tasks of kind ${assignment.kind}.`, true);
  now = { assignment, since: performance.now(), away: 0, hidden: document.hidden ? performance.now() : 0, rationale: earlier.rationale || "", edit: earlier.edit || null };
  const reason = make("input", { type: "text", id: "rationale", value: now.rationale, maxLength: 2000, autocomplete: "off",
    oninput: (event) => { now.rationale = event.target.value; changed(); } });
  now.view = kind.view(assignment, {
    before: earlier, done, changed, say,
    write: edit, edit: button("Write a better one", "e", edit),
    common: [button("Skip or report", "s", reasons), button("Undo", "u", undo)],
  });
  $("task").replaceChildren(
    make("h1", { className: "hidden-label", textContent: NAMES[assignment.kind] }),
    make("section", { aria: { label: "Prompt" } }, ...conversation(assignment.prompt)),
    ...now.view.content,
    make("div", { className: "panel", aria: { role: "region", label: "Your judgement" } }, make("div", {},
      ...now.view.panel,
      make("div", { className: "row why" }, make("label", { htmlFor: "rationale", className: "small", textContent: "Why (optional)" }), reason))));
  $("keys").replaceChildren(...[...kind.keys, ...COMMON].flatMap(([key, what]) => [make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: what })]));
  window.scrollTo(0, 0);
  document.body.dataset.task = assignment.task;
}

async function next() {
  $("task").setAttribute("aria-busy", "true");
  for (;;) {
    try {
      return show(await ask("next", {}));
    } catch (error) {
      if (error.code !== "network") return say(error.message, true);
      told(Math.max(1, waiting()));
      $("offline").textContent = "No connection. Trying again …";
      await new Promise((resolve) => setTimeout(resolve, 2000));
      told(waiting());
    }
  }
}

function seconds() {
  const hidden = now.hidden ? performance.now() - now.hidden : 0;
  return Math.round((performance.now() - now.since - now.away - hidden) / 100) / 10;
}

/** Send an answer, a skip or a flag, and go on. */
async function done(judgement, kind = null) {
  if (busy || !now) return;
  busy = true;
  const { assignment, rationale } = now;
  clearTimeout(later);
  put({
    submission: fresh(), task: assignment.task, token: assignment.token, kind: kind || assignment.kind, value: judgement.value,
    strength: judgement.strength ?? null, seconds: seconds(), rationale: rationale.trim() || null, guideline_version: assignment.guideline_version,
  });
  localStorage.removeItem(place(assignment));
  now = null;
  say("Sending …");
  let problem = null;
  await flush(told, (error) => { problem = error; });
  told(0);
  busy = false;
  say(problem ? problem.message : "Stored. u takes it back.", Boolean(problem));
  await next();
  progress();
}

async function undo() {
  if (busy) return;
  busy = true;
  try {
    const found = await ask("undo", { submission: fresh() });
    say("Taken back.");
    if (found.assignment) show(found);
  } catch (error) {
    say(error.message, true);
  }
  busy = false;
  progress();
}

async function progress() {
  const found = await ask("progress").catch(() => null);
  if (found) $("progress").textContent = `You have judged ${found.mine}. ${found.closed} of ${found.tasks} tasks are complete.`;
}

// -- dialogs --------------------------------------------------------------------------------------------------------------------------

function reasons() {
  if (!now) return;
  $("reasons-form").reset();
  $("reasons").showModal();
  $("reasons-form").elements.reason[0].focus();
}

// A key in a dialog is for the dialog alone, also the one that closes it. Once it is closed its button may have the focus for a moment yet:
// a key then is for the page.
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("keydown", (event) => { if (dialog.open) event.stopPropagation(); });
$("reasons").addEventListener("keydown", (event) => {
  if (event.target.id === "reason-text") return;
  const options = [...$("reasons-form").elements.reason];
  const index = Number(event.key) - 1;
  if (!options[index]) return;
  event.preventDefault();
  options[index].checked = true;
  if (options[index].value.endsWith(":")) return $("reason-text").focus();
  $("reasons").close();
  report();
});
$("reasons-form").addEventListener("submit", (event) => { if (event.submitter?.value === "send") report(); });

/** Skip or report, for the reason that is ticked. */
function report() {
  const option = $("reasons-form").elements.reason.value;
  if (!option) return say("Choose a reason first.", true);
  const [kind, ...text] = option.split(":");
  const reason = text.join(":") || $("reason-text").value.trim();
  if (!reason) return say("Say in a few words what is wrong.", true);
  done({ value: { reason } }, kind);
}

function edit() {
  if (!now || !now.assignment.answers.length) return;
  const order = now.assignment.shown_order;
  const texts = now.assignment.answers.map((said) => said[said.length - 1].text);
  write({
    title: "Write the answer it should have been", note: "It is kept as a demonstration, and as better than the answer that it started from. Your choice is still wanted.",
    from: texts.map((text, place) => [`From answer ${LETTERS[place]}`, text]), at: now.edit ? order.indexOf(now.edit.of) : 0, text: now.edit ? now.edit.text : texts[0],
    input: (text, place) => { now.edit = { of: order[place], text }; changed(); },
    save: (text, place) => store({ of: order[place], text }),
  });
}

/** Keep what was written beside the answer that is still wanted. */
async function store(value) {
  if (!now) return;
  const { assignment } = now;
  put({ submission: fresh(), task: assignment.task, token: assignment.token, kind: "edit", value, seconds: seconds(), guideline_version: assignment.guideline_version });
  let problem = null;
  await flush(told, (error) => { problem = error; });
  told(0);
  if (!problem && now) { now.edit = null; changed(); }
  say(problem ? problem.message : "Your answer is stored. Now choose between the others.", Boolean(problem));
}

// -- keys -----------------------------------------------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.target.matches("textarea, input[type='text']")) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.id === "rationale")) event.target.blur();
    return;
  }
  const acts = { "?": () => $("help").showModal(), u: undo, s: reasons, e: () => now && now.view.write && now.view.write(), r: () => $("rationale") && $("rationale").focus() };
  if (acts[event.key]) {
    event.preventDefault();
    acts[event.key]();
  } else if (now && now.view.key(event)) event.preventDefault();
});
$("help-button").addEventListener("click", () => $("help").showModal());
document.addEventListener("visibilitychange", () => {
  if (!now) return;
  if (document.hidden) now.hidden = performance.now();
  else if (now.hidden) { now.away += performance.now() - now.hidden; now.hidden = 0; }
});

// What an earlier tab could not send goes first.
const left = waiting();
told(left);
if (left) await flush(told, (error) => say(error.message, true));
told(0);
await next();
await progress();
setInterval(progress, 60000);
