// One run, or several on the same axes: curves and answers, as they are written.

import { chart, colorOf, readable, swatch, table } from "./charts.js";
import { conversation, make } from "./dom.js";
import { growOlder, listen } from "./live.js";

const MOST_POINTS = 1500; // the server thins to 1,000: fetch again beyond this
const OPEN = 5, FOLDED = ["Monitors", "Other"]; // groups that are shown at once; the others unfold
const watch = document.getElementById("watch");
const names = JSON.parse(watch.dataset.runs);
const several = names.length > 1 || !document.getElementById("samples");
const status = document.getElementById("status");
const renew = growOlder();
const $ = (run, part) => watch.querySelector(`[data-run="${run}"] [data-${part}]`);
let runs = []; // what the server said of each: { position, groups, ... }
let source = null;
let drawing = 0;
let sampling = 0;

const query = (extra = {}) => new URLSearchParams([...names.map((name) => ["run", name]), ...Object.entries(extra)]);

async function fetched(path, name) {
  const reply = await fetch(`/api/runs/${path}?${new URLSearchParams({ run: name })}`);
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

// -- curves ---------------------------------------------------------------------------------------------------------------------------

/** Charts of all runs, by heading and name: [{title, charts: [{name, title, lines}]}]. */
function merged() {
  const groups = new Map();
  runs.forEach((run, number) => {
    for (const group of run.groups) {
      if (!groups.has(group.title)) groups.set(group.title, new Map());
      const charts = groups.get(group.title);
      for (const { name, title, lines } of group.charts) {
        if (!charts.has(name)) charts.set(name, { name, title, lines: [] });
        for (const line of lines) {
          const own = several ? names[number] : line.held_out ? "held out" : "training";
          charts.get(name).lines.push(Object.assign(line, { color: colorOf(number), dashed: line.held_out, title: several && line.held_out ? `${own}, held out` : own }));
        }
      }
    }
  });
  return [...groups].map(([title, charts]) => ({ title, charts: [...charts.values()] }));
}

function card({ name, title, lines }) {
  const label = `${title}, by step`;
  return make("section", { className: "chart", aria: { label: title } },
    make("h4", { textContent: title }), make("code", { textContent: title === name ? "" : name }), chart(lines, label), table(lines, label));
}

function draw() {
  drawing = 0;
  const place = document.getElementById("curves");
  const unfolded = new Set([...place.querySelectorAll("details[open]")].map((one) => one.dataset.title));
  const focused = [...place.querySelectorAll("[tabindex], summary")].indexOf(document.activeElement);
  const all = merged();
  const folded = ({ title }, number) => number >= OPEN || FOLDED.includes(title);
  const cards = (charts) => make("div", { className: "charts" }, ...charts.map(card));
  const shown = make("div", { className: "groups" }, ...all.filter((group, number) => !folded(group, number)).map(({ title, charts }) =>
    make("div", {}, make("h3", { textContent: title }), cards(charts))));
  const others = all.filter(folded).map(({ title, charts }) =>
    make("details", { open: unfolded.has(title), data: { title } }, make("summary", { textContent: `${title} (${charts.length})` }), cards(charts)));
  const odd = runs.map((run, number) => [run.unreadable && `${run.unreadable} lines of ${names[number]} could not be read`, run.left_out && `${names[number]} has more metrics than are shown`]).flat().filter(Boolean);
  const notes = odd.map((words) => make("p", { className: "banner", textContent: `${words}.` }));
  const empty = all.length ? [] : [make("p", { className: "notice", textContent: "Nothing was logged yet. Curves appear with the first step." })];
  place.replaceChildren(...notes, ...empty, shown, ...others);
  place.removeAttribute("aria-busy");
  if (focused >= 0) [...place.querySelectorAll("[tabindex], summary")][focused]?.focus({ preventScroll: true });
}

function drawSoon() {
  drawing ||= setTimeout(draw, 300);
}

/** A new row of a run's metrics, or false where only the server can say where it belongs. */
function take(run, { step, values }) {
  const lines = new Map(runs[run].groups.flatMap((group) => group.charts.flatMap((one) => one.lines)).map((line) => [line.name, line]));
  for (const [name, value] of Object.entries(values)) {
    const line = lines.get(name);
    if (!line) {
      if (!runs[run].left_out) return false;
      continue; // one of those beyond the most that are shown
    }
    if (value === null) line.not_finite += 1;
    else {
      line.points.push([step, value]);
      Object.assign(line, { last: value, at: step, low: line.low === null ? value : Math.min(line.low, value), high: line.high === null ? value : Math.max(line.high, value) });
    }
    if (line.points.length > MOST_POINTS) return false;
  }
  return true;
}

// -- how it stands --------------------------------------------------------------------------------------------------------------------

function stands({ run, state, why, written, step }) {
  const badge = $(run, "state");
  if (badge.textContent !== state) status.textContent = several ? `${names[run]}: ${state}.` : `${state}.`;
  badge.textContent = state;
  badge.className = `state ${state}`;
  badge.title = why;
  if (step !== null) $(run, "step").textContent = step;
  const [words, time] = [$(run, "why"), $(run, "written")];
  if (words) words.textContent = why;
  if (time) time.dataset.written = written;
  renew();
}

// -- answers --------------------------------------------------------------------------------------------------------------------------

function answer(one) {
  const facts = [one.score !== null ? `reward ${Number(one.score.toPrecision(3))}` : one.error ? `not scored: ${one.error}` : "not scored", `${one.tokens} tokens`, ...(one.finished ? [] : ["cut off at the longest length"])];
  const parts = Object.entries(one.parts).map(([name, value]) => `${name} ${Number(value.toPrecision(3))}`);
  return make("article", { className: "answer" },
    ...conversation(one.prompt), ...conversation(one.answer),
    ...(one.cut ? [make("p", { className: "small", textContent: `… ${one.cut} more characters` })] : []),
    make("p", { className: "small", textContent: [...facts, ...parts].join(" · ") }));
}

async function sample() {
  sampling = 0;
  const place = document.getElementById("samples");
  const { start, now, unreadable } = await fetched("samples", names[0]);
  const column = (title, answers) => make("section", {}, make("h3", { textContent: title }), ...answers.map(answer));
  const odd = unreadable ? [make("p", { className: "banner", textContent: `${unreadable} lines of rollouts.jsonl could not be read.` })] : [];
  if (!start.length) place.replaceChildren(...odd, make("p", { className: "small", textContent: place.dataset.none }));
  else if (start[0].round === now[0].round) place.replaceChildren(...odd, make("div", { className: "then-now" }, column(`Round ${start[0].round}, the only one so far`, start)));
  else place.replaceChildren(...odd, make("div", { className: "then-now" }, column(`At the start: round ${start[0].round}`, start), column(`Now: round ${now[0].round}`, now)));
}

function sampleSoon() {
  if (!several) sampling ||= setTimeout(() => sample().catch((error) => instead("samples", error)), 1000);
}

// -- what the monitors say --------------------------------------------------------------------------------------------------------------

/** One verdict: how it stands, its number and limit, what it means, and the answers that show it. */
function verdict(one, past) {
  const when = one.level !== "alarm" || one.round === null ? [] : [past ? `in round ${one.round}, not in the last one` : `since round ${one.round}`];
  const done = one.action ? [`done: ${one.action}`] : [];
  const shown = one.samples.map((sample) => make("div", { className: "shown" },
    make("p", { className: "small", textContent: `${sample.reward === null ? "" : `reward ${Number(sample.reward.toPrecision(3))} · `}to: ${sample.prompt}` }), make("div", { className: "written", textContent: sample.text })));
  const level = past ? "past" : one.level;
  return make("tr", {},
    make("th", { scope: "row" }, one.cause && one.cause !== one.name ? `${one.name}: ${one.cause}` : one.name),
    make("td", {}, make("span", { className: `state level ${level}`, textContent: past ? "past alarm" : one.level })),
    make("td", { className: "n", data: { column: "value" }, textContent: readable(one.value) }), make("td", { className: "n", data: { column: "alarm at" }, textContent: readable(one.limit) }),
    make("td", { className: "words" }, make("div", { textContent: [one.words, ...[...when, ...done].map((words) => `(${words})`)].join(" ") }),
      ...(shown.length ? [make("details", {}, make("summary", { textContent: `Answers that show it (${shown.length})` }), ...shown)] : [])));
}

function verdicts(rows, label) {
  const head = ["monitor", "verdict", "value", "alarm at", "in words"].map((name, place) => make("th", { scope: "col", className: place === 2 || place === 3 ? "n" : "", textContent: name }));
  return make("div", { className: "scroll", tabIndex: 0, aria: { role: "region", label } }, make("table", { className: "verdicts" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
}

let monitoring = 0;

async function monitor() {
  monitoring = 0;
  const place = document.getElementById("monitors");
  const unfolded = place.querySelector("details.others")?.open ?? false;
  const { round, now, before, unreadable } = await fetched("monitors", names[0]);
  const odd = unreadable ? [make("p", { className: "banner", textContent: `${unreadable} rows of monitors.json and alarms.jsonl could not be read.` })] : [];
  if (!now.length && !before.length) {
    place.replaceChildren(...odd, make("p", { className: "small", textContent: place.dataset.none }));
    return;
  }
  const loud = now.filter((one) => one.level !== "quiet"), quiet = now.filter((one) => one.level === "quiet");
  const count = now.filter((one) => one.level === "alarm").length;
  const words = `Round ${round ?? "?"}: ${count ? `${count} alarm${count > 1 ? "s" : ""}` : "no alarm"}${loud.length > count ? `, ${loud.length - count} on the way to one` : ""}, ${quiet.length} quiet.`;
  const rows = [...loud.map((one) => verdict(one, false)), ...before.map((one) => verdict(one, true))];
  place.replaceChildren(...odd, make("p", { className: count ? "banner" : "", textContent: words }),
    ...(rows.length ? [verdicts(rows, "Alarms")] : []),
    ...(quiet.length ? [make("details", { className: "others", open: unfolded }, make("summary", { textContent: `Quiet (${quiet.length})` }), verdicts(quiet.map((one) => verdict(one, false)), "Quiet monitors"))] : []));
}

function monitorSoon() {
  if (!several) monitoring ||= setTimeout(() => monitor().catch((error) => instead("monitors", error)), 1000);
}

// -- live -----------------------------------------------------------------------------------------------------------------------------

function failed(error) {
  source?.close();
  status.textContent = error.message || "The server does not answer. Reload the page.";
}

/** What is asked beside the stream and does not come is said in its own place; the stream tells of a lost connection and a run that is gone. */
function instead(place, error) {
  document.getElementById(place).replaceChildren(make("p", { className: "small", textContent: error.message }));
}

async function begin() {
  source?.close();
  source = null;
  try {
    runs = await Promise.all(names.map((name) => fetched("curves", name)));
  } catch (error) {
    failed(error);
    return;
  }
  draw();
  source = listen(`/api/runs/events?${query({ after: runs.map((run) => run.position).join(",") })}`, {
    rows: ({ run, rows }) => (rows.every((row) => take(run, row)) ? drawSoon() : begin()),
    again: begin,
    state: stands,
    samples: sampleSoon,
    monitors: monitorSoon,
    gone: ({ run }) => {
      status.textContent = `${names[run]} is no longer there: its folder was deleted or moved.`;
      if (names.length === 1) source.close();
    },
  }, (lost) => {
    if (lost) status.textContent = "The connection is lost. Trying again …";
    else if (status.textContent.startsWith("The connection")) status.textContent = "";
  }, refused);
}

/** The stream will not come back: say why, if the server does. */
async function refused() {
  const asked = await Promise.allSettled(names.map((name) => fetched("curves", name)));
  failed(asked.find((one) => one.status === "rejected")?.reason ?? new Error("Too many pages are watching. Close some, and reload this one."));
}

for (const run of several ? names.keys() : []) $(run, "swatch").append(swatch(colorOf(run)));
await begin();
