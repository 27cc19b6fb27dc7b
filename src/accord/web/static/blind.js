// Checkpoints side by side: asks, shows answers as they are written, sends the vote, and shows only then whose they were.

import { asked, growing, leave, markEmpty, saying, sentBy } from "./asking.js";
import { ask, flush, fresh, put, waiting } from "./client.js";
import { conversation, LETTERS, make, say } from "./dom.js";
import * as pair from "./pair.js";
import * as ranking from "./ranking.js";

const $ = (id) => document.getElementById(id);
const VIEWS = { pair, ranking };
const EDITS = "e"; // the key of what these views can do on the page for judging, and not here
const places = Number(document.querySelector(".blind").dataset.places);
let said = []; // turns of the conversation, as the server gave them
let now = null; // { assignment, view, since } while answers wait for a vote
let busy = false;

function told(left) {
  $("offline").hidden = left === 0;
  $("offline").textContent = left ? "Your vote is kept here and not sent yet: no connection. Trying again …" : "";
}

function working(on) {
  busy = on;
  $("send").disabled = on;
  $("answers").setAttribute("aria-busy", String(on));
}

function showConversation(...more) {
  $("conversation").replaceChildren(...conversation(said), ...more);
}

// -- a question ------------------------------------------------------------------------------------------------------------------------

async function send() {
  const text = $("question").value.trim();
  if (!text || busy) return;
  working(true);
  now = null;
  delete document.body.dataset.task;
  $("question").value = "";
  $("question").blur();
  showConversation(saying(text));
  const grown = growing($("answers"), places);
  say("Asking …");
  try {
    const found = await asked(said, text, grown, (lost) => say(lost ? "The connection is lost. Trying again …" : "Answering, one after another …"));
    show(found.assignment);
    const same = places - found.assignment.answers.length;
    const notes = [same ? `${same + 1} gave the same answer, which is shown once.` : "", found.forgotten ? "The oldest turns are forgotten: one of the models has no room for them." : ""];
    say(["Which is better?", ...notes].filter(Boolean).join(" "));
  } catch (error) {
    showConversation();
    $("answers").replaceChildren();
    $("question").value = text;
    say(error.message, true);
  }
  working(false);
}

/** The answers and what can be said about them, as on the page for judging. */
function show(assignment) {
  markEmpty(assignment.answers.flat());
  said = assignment.prompt;
  showConversation();
  const kind = VIEWS[assignment.kind];
  const view = kind.view(assignment, { before: {}, done: vote, changed() {}, say, edit: "", common: [], write: null });
  now = { assignment, view, since: performance.now() };
  $("answers").replaceChildren(...view.content, make("div", { className: "choices", aria: { role: "group", label: "Your vote" } }, ...view.panel));
  $("keys").replaceChildren(...kind.keys.filter(([key]) => key !== EDITS).flatMap(([key, what]) => [make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: what })]));
  document.body.dataset.task = assignment.task;
}

async function vote(judgement) {
  if (!now || busy) return;
  working(true);
  const { assignment, since } = now;
  now = null;
  put({
    submission: fresh(), task: assignment.task, token: assignment.token, kind: assignment.kind, value: judgement.value, strength: judgement.strength ?? null,
    seconds: Math.round((performance.now() - since) / 100) / 10, rationale: null, guideline_version: assignment.guideline_version,
  });
  say("Sending …");
  let problem = null;
  await flush(told, (error) => { problem = error; });
  told(0);
  delete document.body.dataset.task;
  if (problem) say(problem.message, true);
  else await reveal(assignment, judgement.value);
  working(false);
  stand();
}

/** Which places were chosen: of a pair one, of a ranking those that are first. */
function chosen(assignment, value) {
  const first = (index) => (value.ranks ? value.ranks[index] === 1 : value.choice === index);
  return assignment.shown_order.map(first);
}

async function reveal(assignment, value) {
  const best = chosen(assignment, value);
  try {
    const { places: authors } = await ask(`compare/revealed/${assignment.task}`);
    $("answers").replaceChildren(make("div", { className: "answers" }, ...assignment.answers.map((turns, place) =>
      make("section", { className: best[place] ? "answer chosen" : "answer", aria: { label: `Answer ${LETTERS[place]}, with its author` } },
        make("h2", { textContent: `${LETTERS[place]}: ${authors[place].map((one) => one.model).join(" and ")}` }),
        make("p", { className: "small", textContent: `${authors[place][0].tokens} tokens${best[place] ? ", your choice" : ""}` }),
        ...conversation(turns, turns.length > 1)))));
    const on = Math.max(0, best.indexOf(true));
    said = [...said, ...assignment.answers[on]];
    say(`Stored. The conversation goes on with answer ${LETTERS[on]}.`);
  } catch (error) {
    say(`The vote is stored. ${error.message}`, true);
  }
}

async function undo() {
  if (busy) return;
  working(true);
  try {
    await ask("compare/take-back", { submission: fresh() });
    say("Taken back: that vote counts no more, and is not asked again.");
  } catch (error) {
    say(error.message, true);
  }
  working(false);
  stand();
}

function start() {
  if (busy) return;
  said = [];
  now = null;
  showConversation();
  $("answers").replaceChildren();
  delete document.body.dataset.task;
  say("A new conversation.");
  $("question").focus();
}

// -- how they stand --------------------------------------------------------------------------------------------------------------------

const percent = (share) => `${Math.round(100 * share)} %`;

async function stand() {
  const found = await ask("compare/tallies").catch(() => null);
  if (!found) return;
  const rows = found.pairs.flatMap((one) => [
    make("dt", { textContent: `${one.first} against ${one.second}` }),
    make("dd", {}, ...(one.count ? [`${one.wins} won, ${one.ties} tied, ${one.losses} lost. `, make("strong", { textContent: percent(one.mean) }), ` (${percent(one.low)} to ${percent(one.high)}): ${one.words}.`] : [one.words]))]);
  const others = found.others ? [make("p", { className: "small", textContent: `${found.others} more vote${found.others === 1 ? " is" : "s are"} on other models, or on other weights under these names.` })] : [];
  $("tallies").replaceChildren(make("dl", { className: "standing" }, ...rows), ...others);
}

// -- keys ------------------------------------------------------------------------------------------------------------------------------

sentBy(send);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target === $("question") || document.querySelector("dialog[open]")) return;
  const acts = { u: undo, n: start, a: () => $("question").focus(), "?": () => $("help").showModal() };
  if (acts[event.key]) {
    event.preventDefault();
    acts[event.key]();
  } else if (now && now.view.key(event)) event.preventDefault();
});
$("help").addEventListener("keydown", (event) => { if ($("help").open) event.stopPropagation(); });
$("help-button").addEventListener("click", () => $("help").showModal());
$("fresh").addEventListener("click", start);
$("undo").addEventListener("click", undo);
$("leave").addEventListener("click", () => leave(say));

$("question").focus();
// What an earlier tab could not send goes first.
if (waiting()) await flush(told, (error) => say(error.message, true));
told(0);
await stand();
