// The steps of a solution: right, neutral or wrong, one by one, or the first wrong one.

import { button, LETTERS, make, mover } from "./dom.js";
import { write } from "./editor.js";

const LABELS = [[1, "right", "1"], [0, "neutral", "2"], [-1, "wrong", "3"]];

export const keys = [
  ["j, k", "next and previous step"],
  ["1, 2, 3", "the step you are at is right, neutral, wrong"],
  ["f", "it is the first wrong one: those before are right, those after are not judged"],
  ["a", "all steps are right"],
  ["e", "write what the step you are at should have been, or take another text for it"],
  ["Enter", "send, once each step has a label or the first error is named"],
];

/** The page of a solution's steps. `page.done(judgement)` sends; `page.changed()` keeps a draft. */
export function view(assignment, page) {
  const steps = assignment.answers[0];
  const before = page.before.value || {};
  let labels = before.labels ? [...before.labels] : Array(steps.length).fill(null);
  let error = "first_error" in before ? before.first_error : undefined; // undefined: labels count
  let better = before.alternative || null;
  let writing = page.before.writing || null;
  const send = button("Send", "Enter", () => submit());
  const shown = steps.map((step, index) => {
    const text = make("div", { className: "text" });
    text.innerHTML = step.html;
    const row = make("div", { className: "rank", aria: { role: "radiogroup", label: `Step ${index + 1}` } });
    for (const [label, word] of LABELS) {
      row.append(make("button", { type: "button", textContent: word, onclick: () => give(index, label), aria: { role: "radio", label: `Step ${index + 1} is ${word}` } }));
    }
    row.append(make("button", { type: "button", textContent: "first error", onclick: () => first(index), aria: { role: "radio", label: `Step ${index + 1} is the first error` } }));
    const own = make("p", { className: "own" });
    const others = (assignment.alternatives || [])[index] || [];
    const hint = others.length ? [make("p", { className: "small", textContent: `${others.length} other text${others.length > 1 ? "s" : ""} to choose from: write a better step` })] : [];
    const drop = button("Drop it", null, () => { better = null; paint(); page.changed(); });
    return { whole: make("li", { className: "answer step", tabIndex: -1 }, text, ...hint, own, row), row, own, drop };
  });
  const move = mover(shown.map(({ whole }) => whole));

  function paint() {
    shown.forEach(({ row }, index) => [...row.children].forEach((one, place) => {
      const on = place === 3 ? error === index : error === undefined && labels[index] === LABELS[place][0];
      one.setAttribute("aria-checked", String(on));
    }));
    shown.forEach(({ own, drop }, index) => own.replaceChildren(...(better && better.step === index ? [`Your step: ${better.text} `, drop] : [])));
    send.disabled = error === undefined && labels.includes(null);
  }
  function give(index, label) {
    error = undefined;
    labels[index] = label;
    paint();
    page.changed();
  }
  function first(index) {
    error = index;
    paint();
    page.changed();
  }
  /** Another step in place of one: the solution up to there with it is a second, right one. */
  function rewrite(step) {
    const kept = [writing, better].find((one) => one && one.step === step);
    write({
      title: `Write what step ${step + 1} should have been`, note: "The solution up to there, ended by your step, is kept as a right one. One step of a solution can have this.",
      from: choices(step), at: 0, text: kept ? kept.text : steps[step].text,
      input: (text) => { writing = { step, text }; page.changed(); },
      save(text) {
        writing = null;
        if (!text.trim() || text.trim() === steps[step].text.trim()) return page.say("This is the step as it was: nothing is kept.", true);
        better = { step, text };
        paint();
        page.changed();
      },
    });
  }
  /** What a better step may start from: the step as it is, and the other texts that the task has for it. */
  function choices(step) {
    const others = (assignment.alternatives || [])[step] || [];
    return others.length ? [["As it is", steps[step].text], ...others.map((text, place) => [`Other text ${place + 1}`, text])] : [];
  }
  const value = () => ({ ...(error === undefined ? { labels } : { first_error: error }), ...(better ? { alternative: better } : {}) });
  function submit() {
    if (send.disabled) return page.say(`Step ${labels.indexOf(null) + 1} has no label yet.`, true);
    page.done({ value: value(), strength: null });
  }
  paint();
  return {
    content: [make("ol", { className: "steps", aria: { label: `Steps of answer ${LETTERS[0]}` } }, ...shown.map(({ whole }) => whole))],
    panel: [make("div", { className: "row" }, send, button("All right", "a", () => all()), button("Write a better step", "e", () => rewrite(move.at)), ...page.common)],
    write: () => rewrite(move.at),
    key(event) {
      if (move(event)) return true;
      if (event.key === "Enter" && event.target.tagName !== "BUTTON") return submit(), true;
      if (event.key === "a") return all(), true;
      if (event.key === "f") return first(move.at), true;
      const label = LABELS.find(([, , key]) => key === event.key);
      if (!label) return false;
      give(move.at, label[0]);
      if (move.at < steps.length - 1) move.to(move.at + 1);
      return true;
    },
    draft: () => ({ value: value(), writing }),
  };

  function all() {
    error = undefined;
    labels = Array(steps.length).fill(1);
    paint();
    page.changed();
  }
}
