// The steps of a solution: right, neutral or wrong, one by one, or the first wrong one.

import { button, LETTERS, make } from "./dom.js";

const LABELS = [[1, "right", "1"], [0, "neutral", "2"], [-1, "wrong", "3"]];

export const keys = [
  ["j, k", "next and previous step"],
  ["1, 2, 3", "the step you are at is right, neutral, wrong"],
  ["f", "it is the first wrong one: those before are right, those after are not judged"],
  ["a", "all steps are right"],
  ["Enter", "send, once each step has a label or the first error is named"],
];

/** The page of a solution's steps. `page.done(judgement)` sends; `page.changed()` keeps a draft. */
export function view(assignment, page) {
  const steps = assignment.answers[0];
  const before = (page.before && page.before.value) || {};
  let labels = before.labels ? [...before.labels] : Array(steps.length).fill(null);
  let error = "first_error" in before ? before.first_error : undefined; // undefined: labels count
  let at = 0;
  const send = button("Send", "Enter", () => submit());
  const shown = steps.map((step, index) => {
    const text = make("div", { className: "text" });
    text.innerHTML = step.html;
    const row = make("div", { className: "rank", aria: { role: "radiogroup", label: `Step ${index + 1}` } });
    for (const [label, word] of LABELS) {
      row.append(make("button", { type: "button", textContent: word, onclick: () => give(index, label), aria: { role: "radio", label: `Step ${index + 1} is ${word}` } }));
    }
    row.append(make("button", { type: "button", textContent: "first error", onclick: () => first(index), aria: { role: "radio", label: `Step ${index + 1} is the first error` } }));
    const whole = make("li", { className: "answer step", tabIndex: -1 }, text, row);
    whole.addEventListener("focusin", () => { at = index; });
    return { whole, row };
  });

  function paint() {
    shown.forEach(({ row }, index) => [...row.children].forEach((one, place) => {
      const on = place === 3 ? error === index : error === undefined && labels[index] === LABELS[place][0];
      one.setAttribute("aria-checked", String(on));
    }));
    send.disabled = error === undefined && labels.includes(null);
  }
  function go(index) {
    at = Math.max(0, Math.min(steps.length - 1, index));
    shown[at].whole.focus();
    shown[at].whole.scrollIntoView({ block: "nearest" });
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
  const value = () => (error === undefined ? { labels } : { first_error: error });
  function submit() {
    if (send.disabled) return page.say(`Step ${labels.indexOf(null) + 1} has no label yet.`, true);
    page.done({ value: value(), strength: null });
  }
  paint();
  return {
    content: [make("ol", { className: "steps", aria: { label: `Steps of answer ${LETTERS[0]}` } }, ...shown.map(({ whole }) => whole))],
    panel: [make("div", { className: "row" }, send, button("All right", "a", () => all()), ...page.common)],
    key(event) {
      if (event.key === "j" || event.key === "k") return go(event.key === "j" ? at + (document.activeElement === shown[at].whole ? 1 : 0) : at - 1), true;
      if (event.key === "Enter" && event.target.tagName !== "BUTTON") return submit(), true;
      if (event.key === "a") return all(), true;
      if (event.key === "f") return first(at), true;
      const label = LABELS.find(([, , key]) => key === event.key);
      if (!label) return false;
      give(at, label[0]);
      if (at < steps.length - 1) go(at + 1);
      return true;
    },
    draft: () => ({ value: value() }),
  };

  function all() {
    error = undefined;
    labels = Array(steps.length).fill(1);
    paint();
    page.changed();
  }
}
