// The chat that learns: asks, shows two answers as they are written, sends which is better, and shows how far the model has moved.

import { ask, flush, fresh, put, waiting } from "./client.js";
import { answers, button, conversation, LETTERS, make } from "./dom.js";

const $ = (id) => document.getElementById(id);
const DOING = { answering: "It is answering.", learning: "It is learning.", looking: "It answers the fixed question again.", idle: "" };
let said = []; // turns of the conversation, as the server gave them
let pair = null; // { assignment, since } while two answers wait for a choice
let busy = false;
let version = -1;

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").className = bad ? "bad" : "";
}

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

/** Two places where answers grow; what is in them is text and nothing else. */
function growing() {
  const places = [0, 1].map((place) => make("div", { className: "written" }));
  $("pair").replaceChildren(make("div", { className: "answers" }, ...places.map((text, place) =>
    make("section", { className: "answer writing", aria: { label: `Answer ${LETTERS[place]}, being written` } }, make("h2", { textContent: `Answer ${LETTERS[place]}` }), text))));
  return places;
}

async function send() {
  const text = $("question").value.trim();
  if (!text || busy) return;
  working(true);
  pair = null;
  $("question").value = "";
  $("question").blur();
  showConversation(make("div", { className: "turn user" }, make("div", { className: "role", textContent: "user" }), make("div", { className: "written", textContent: text })));
  const places = growing();
  say("Asking …");
  try {
    const messages = [...said.map((turn) => ({ role: turn.role, content: turn.text })), { role: "user", content: text }];
    const { question } = await ask("chat/ask", { messages });
    for (;;) {
      const found = await ask(`chat/question/${question}`).catch((error) => { if (error.code !== "network") throw error; });
      if (found && found.problem) throw new Error(found.problem);
      if (found && found.assignment) {
        show(found.assignment);
        say(found.forgotten ? "Which is better? (The oldest turns are forgotten: the model has no room for them.)" : "Which is better? 1, 2, or t for a tie.");
        break;
      }
      if (found) found.texts.forEach((grown, place) => { places[place].textContent = grown; });
      await pause(250);
    }
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
  for (const turn of assignment.answers.flat()) if (!turn.text.trim()) turn.html = '<p class="small">(nothing: it ended at once)</p>';
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

$("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Escape") event.target.blur();
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target === $("question") || document.querySelector("dialog[open]")) return;
  const acts = { 1: () => prefer(0), 2: () => prefer(1), t: () => prefer("tie"), u: undo, n: start, a: () => $("question").focus(), "?": () => $("help").showModal() };
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});
$("help").addEventListener("keydown", (event) => { if ($("help").open) event.stopPropagation(); });
$("help-button").addEventListener("click", () => $("help").showModal());
$("fresh").addEventListener("click", start);
$("undo").addEventListener("click", undo);
if ($("save")) $("save").addEventListener("click", save);

// What an earlier tab could not send goes first.
if (waiting()) await flush(told, (error) => say(error.message, true));
told(0);
$("question").focus();
for (;;) {
  if (!document.hidden) await look();
  await pause(1000);
}
