// The chat: asks, and shows the answer as it is written. One that learns shows two, sends which is better, and shows how far the model has moved.

import { asked, growing, leave, markEmpty, saying, sentBy } from "./asking.js";
import { ask, flush, fresh, put, waiting } from "./client.js";
import { answers, button, conversation, make, say } from "./dom.js";

const $ = (id) => document.getElementById(id);
const learns = document.querySelector(".chat").dataset.kind === "learn";
const DOING = { answering: "It is answering.", learning: "It is learning.", looking: "It answers the fixed question again.", idle: "" };
let said = []; // turns of the conversation, as the server gave them
let pair = null; // { assignment, since } while two answers wait for a choice
let busy = false;
let version = -1;

function told(left) {
  $("offline").hidden = left === 0;
  $("offline").textContent = left ? "Your preference is kept here and not sent yet: no connection. Trying again …" : "";
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function working(now) {
  busy = now;
  $("send").disabled = now;
  $("pair").setAttribute("aria-busy", String(now));
}

function showConversation(...more) {
  $("conversation").replaceChildren(...conversation(said), ...more);
}

// -- a question ------------------------------------------------------------------------------------------------------------------------

async function send() {
  const text = $("question").value.trim();
  if (!text || busy) return;
  working(true);
  pair = null;
  $("question").value = "";
  if (learns) $("question").blur();
  showConversation(saying(text));
  const places = growing($("pair"), learns ? 2 : 1);
  say("Asking …");
  try {
    const found = await asked(said, text, places, (lost) => say(lost ? "The connection is lost. Trying again …" : "Answering …"));
    if (found.assignment) show(found.assignment);
    else {
      said = markEmpty(found.said);
      showConversation();
      $("pair").replaceChildren();
    }
    const forgotten = found.forgotten ? " (The oldest turns are forgotten: the model has no room for them.)" : "";
    say(`${learns ? "Which is better? 1, 2, or t for a tie." : "Answered."}${forgotten}`);
  } catch (error) {
    showConversation();
    $("pair").replaceChildren();
    $("question").value = text;
    say(error.message, true);
  }
  working(false);
  look();
}

/** The two answers of a pair and what can be said about them; the conversation before it follows from its prompt. */
function show(assignment) {
  pair = { assignment, since: performance.now() };
  said = assignment.prompt.filter((turn) => turn.role !== "system");
  showConversation();
  markEmpty(assignment.answers.flat());
  $("pair").replaceChildren(
    make("div", { className: "answers" }, ...answers(assignment)),
    make("div", { className: "row choices", aria: { role: "group", label: "Which answer is better" } },
      button("A is better", "1", () => prefer(0)), button("B is better", "2", () => prefer(1)), button("Tie", "t", () => prefer("tie"))));
  document.body.dataset.task = assignment.task;
}

async function prefer(place) {
  if (!pair || busy) return;
  working(true);
  const { assignment, since } = pair;
  pair = null;
  put({
    submission: fresh(), task: assignment.task, token: assignment.token, kind: "pair", value: { choice: place === "tie" ? "tie" : assignment.shown_order[place] },
    strength: null, seconds: Math.round((performance.now() - since) / 100) / 10, rationale: null, guideline_version: assignment.guideline_version,
  });
  say("Sending …");
  let problem = null;
  await flush(told, (error) => { problem = error; });
  told(0);
  said = [...said, ...assignment.answers[place === "tie" ? 0 : place]];
  showConversation();
  $("pair").replaceChildren();
  delete document.body.dataset.task;
  say(problem ? problem.message : place === "tie" ? "Stored; the conversation goes on with answer A." : "Stored; it learns from that now.", Boolean(problem));
  working(false);
  $("question").focus();
  look();
}

async function undo() {
  if (busy) return;
  working(true);
  try {
    const found = await ask("undo", { submission: fresh() });
    if (found.assignment && found.assignment.kind === "pair") show(found.assignment);
    say("Taken back: it is not trained on again. What the model has learned from it stays learned.");
  } catch (error) {
    say(error.message, true);
  }
  working(false);
  look();
}

function start() {
  if (busy) return;
  said = [];
  pair = null;
  showConversation();
  $("pair").replaceChildren();
  delete document.body.dataset.task;
  say("A new conversation.");
  $("question").focus();
}

async function save() {
  $("save").disabled = true;
  say("Saving …");
  try {
    say(`Saved in ${(await ask("chat/save", {})).folder}: an ordinary peft adapter.`);
  } catch (error) {
    say(error.message, true);
  }
  $("save").disabled = false;
}

// -- how far it has moved --------------------------------------------------------------------------------------------------------------

const plain = (number, digits = 0) => (number == null ? "…" : number.toFixed(digits));

function showLook(id, found) {
  if (!found) return;
  $(id).innerHTML = found.html || '<p class="small">(nothing: it ended at once)</p>'; // made safe by the server
  $(`${id}-tokens`).textContent = `${found.tokens} tokens${id === "now" ? `, after ${found.step} steps` : ""}`;
}

async function look() {
  if (!learns) return;
  const found = await ask(`chat/state?seen=${version}`).catch(() => null);
  if (!found) return;
  $("clicks").textContent = `${found.clicks}${found.waiting ? `, ${found.waiting} not learned yet` : ""}`;
  $("steps").textContent = `${found.steps}${DOING[found.doing] ? ` (${DOING[found.doing]})` : ""}`;
  $("kl").textContent = found.newest ? `${plain(found.newest.kl_nats, 1)} nats an answer` : "…";
  $("length").textContent = found.newest ? `${plain(found.newest.tokens)} tokens now, ${plain(found.first.tokens)} at the start` : "…";
  $("problem").hidden = !found.problem;
  $("problem").textContent = found.problem ? `Training has stopped: ${found.problem}` : "";
  $("probe").textContent = found.probe.prompt;
  showLook("start", found.probe.start);
  showLook("now", found.probe.now);
  if (found.charts) {
    version = found.version;
    for (const [name, svg] of Object.entries(found.charts)) $(`chart-${name}`).innerHTML = svg; // numbers, drawn by the server
  }
}

// -- keys ------------------------------------------------------------------------------------------------------------------------------

sentBy(send);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target === $("question") || document.querySelector("dialog[open]")) return;
  const always = { n: start, a: () => $("question").focus(), "?": () => $("help").showModal() };
  const acts = learns ? { ...always, 1: () => prefer(0), 2: () => prefer(1), t: () => prefer("tie"), u: undo } : always;
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});
$("help").addEventListener("keydown", (event) => { if ($("help").open) event.stopPropagation(); });
$("help-button").addEventListener("click", () => $("help").showModal());
$("fresh").addEventListener("click", start);
if ($("undo")) $("undo").addEventListener("click", undo);
if ($("save")) $("save").addEventListener("click", save);
if ($("leave")) $("leave").addEventListener("click", () => leave(say));

// What an earlier tab could not send goes first.
if (waiting()) await flush(told, (error) => say(error.message, true));
told(0);
$("question").focus();
while (learns) {
  if (!document.hidden) await look();
  await pause(1000);
}
