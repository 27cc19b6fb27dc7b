// Talking with a model: says something, shows two answers as they are written, sends which is better and how clearly, and goes on from there.

import { asked, growing, markEmpty, saying, sentBy } from "./asking.js";
import { ask, flush, fresh, put, waiting } from "./client.js";
import { answers, button, conversation, make, mover, say } from "./dom.js";
import { judged, numberOf, scale } from "./pair.js";

const $ = (id) => document.getElementById(id);
const PLACE = `accord.talk.${document.querySelector('meta[name="annotator"]').content}`;
const CANNOT = "I cannot decide";
let said = []; // turns of the conversation, as the server gave them
let pair = null; // { assignment, since, rationale, move } while two answers wait for a judgement
let asking = ""; // what was said and is not answered yet
let busy = false;

function told(left) {
  $("offline").hidden = left === 0;
  $("offline").textContent = left ? "Your judgement is kept here and not sent yet: no connection. Trying again …" : "";
}

/** Keep the conversation in this browser, with what is being written: a closed tab loses none of it. */
function keep() {
  const open = pair && { assignment: pair.assignment, rationale: pair.rationale };
  localStorage.setItem(PLACE, JSON.stringify({ said, text: asking || $("question").value, pair: open }));
}

function working(now) {
  busy = now;
  $("send").disabled = now;
  $("pair").setAttribute("aria-busy", String(now));
}

function paint(...more) {
  $("conversation").replaceChildren(...conversation(said), ...more);
  $("ask").hidden = Boolean(pair);
  if (!pair) {
    $("pair").replaceChildren();
    delete document.body.dataset.task;
  }
}

// -- saying something -----------------------------------------------------------------------------------------------------------------

async function send() {
  const text = $("question").value.trim();
  if (!text || busy || pair) return;
  working(true);
  asking = text;
  $("question").value = "";
  $("question").blur();
  keep();
  paint(saying(text));
  say("It is answering …");
  try {
    const found = await asked(said, text, growing($("pair"), 2), (lost) => say(lost ? "The connection is lost. Trying again …" : "It is answering …"));
    asking = "";
    show(found.assignment, [...said, found.assignment.prompt.at(-1)]);
    say(`Which is better? 1 to 8, t for a tie, x if both are bad.${found.forgotten ? " (The oldest turns are forgotten: the model has no room for them.)" : ""}`);
  } catch (error) {
    asking = "";
    paint();
    $("question").value = text;
    say(error.message, true);
  }
  keep();
  working(false);
}

/** The two answers of a pair and what can be said about them. `turns` is the conversation before them: the pair's prompt, or more where the model had no room for all. */
function show(assignment, turns, rationale = "") {
  assignment.answers.forEach(markEmpty);
  const shown = answers(assignment);
  pair = { assignment, since: performance.now(), rationale, move: mover(shown) };
  said = turns;
  paint();
  const before = assignment.draft || {};
  const pressed = (choice) => ({ ariaPressed: String(before.value?.choice === choice) });
  const reason = make("input", { type: "text", id: "rationale", value: rationale, maxLength: 2000, autocomplete: "off",
    oninput: (event) => { pair.rationale = event.target.value; keep(); } });
  $("pair").replaceChildren(
    make("div", { className: "answers" }, ...shown),
    make("div", { aria: { role: "group", label: "Your judgement" } },
      make("div", { className: "ends" }, make("span", { textContent: "← left (A)" }), make("span", { textContent: "right (B) →" })),
      scale((number) => judge(judged(assignment, number)), numberOf(assignment, before), "Which answer is better"),
      make("div", { className: "row" }, button("Tie", "t", () => other("tie"), pressed("tie")), button("Both bad", "x", () => other("both_bad"), pressed("both_bad")), button("Cannot decide", "s", skip)),
      make("div", { className: "row why" }, make("label", { htmlFor: "rationale", className: "small", textContent: "Why (optional)" }), reason)));
  document.body.dataset.task = assignment.task;
}

// -- judging --------------------------------------------------------------------------------------------------------------------------

const other = (choice) => judge({ value: { choice }, strength: null });
const skip = () => judge({ value: { reason: CANNOT }, strength: null }, "skip");

async function judge({ value, strength }, kind = "pair") {
  if (!pair || busy) return;
  working(true);
  const { assignment, since, rationale } = pair;
  const place = assignment.shown_order.indexOf(value.choice);
  put({
    submission: fresh(), task: assignment.task, token: assignment.token, kind, value, strength: strength ?? null,
    seconds: Math.round((performance.now() - since) / 100) / 10, rationale: rationale.trim() || null, guideline_version: assignment.guideline_version,
  });
  pair = null;
  said = [...said, ...assignment.answers[Math.max(0, place)]];
  keep();
  say("Sending …");
  let problem = null;
  await flush(told, (error) => { problem = error; });
  told(0);
  paint();
  say(problem ? problem.message : place < 0 ? "Stored; the conversation goes on with answer A." : "Stored. u takes it back.", Boolean(problem));
  working(false);
  $("question").focus();
}

async function undo() {
  if (busy) return;
  working(true);
  try {
    const found = await ask("undo", { submission: fresh() });
    const again = found.assignment?.kind === "pair" ? found.assignment : null;
    const here = again && said.length > 1 && said.at(-2).text === again.prompt.at(-1).text;
    if (again) show(again, here ? said.slice(0, -1) : again.prompt, again.draft?.rationale || "");
    say(pair ? "Taken back." : "Taken back: it was of another page, where it can be judged again (Judge).");
    keep();
  } catch (error) {
    say(error.message, true);
  }
  working(false);
}

/** A new conversation; a pair that was not judged is given back. */
async function start() {
  if (busy) return;
  working(true);
  const left = pair;
  [said, pair] = [[], null];
  if (left) await ask("release", { task: left.assignment.task, token: left.assignment.token }).catch(() => null);
  paint();
  keep();
  say("A new conversation.");
  working(false);
  $("question").focus();
}

// -- keys -----------------------------------------------------------------------------------------------------------------------------

sentBy(send);
$("question").addEventListener("input", keep);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.target.matches("textarea, input[type='text']")) {
    if (event.target.id === "rationale" && (event.key === "Escape" || event.key === "Enter")) event.target.blur();
    return;
  }
  const acts = { u: undo, n: start, a: () => !pair && $("question").focus(), "?": () => $("help").showModal() };
  if (pair) Object.assign(acts, { t: () => other("tie"), x: () => other("both_bad"), s: skip, r: () => $("rationale").focus() });
  for (let number = 1; pair && number <= 8; number++) acts[number] = () => judge(judged(pair.assignment, number));
  if (acts[event.key]) {
    event.preventDefault();
    acts[event.key]();
  } else if (pair && pair.move(event)) event.preventDefault();
});
$("help").addEventListener("keydown", (event) => { if ($("help").open) event.stopPropagation(); });
$("help-button").addEventListener("click", () => $("help").showModal());
$("fresh").addEventListener("click", start);
$("undo").addEventListener("click", undo);

// What an earlier tab could not send goes first, then the conversation as it was.
if (waiting()) await flush(told, (error) => say(error.message, true));
told(0);
const earlier = JSON.parse(localStorage.getItem(PLACE) || "null");
if (earlier) {
  said = earlier.said;
  $("question").value = earlier.text;
  if (earlier.pair) show(earlier.pair.assignment, said, earlier.pair.rationale);
  else paint();
  if (said.length || pair) say("The conversation as you left it.");
}
if (!pair) $("question").focus();
