// Two answers: which is better and how clearly, a tie, or both bad.

import { answers, button, make } from "./dom.js";

const WORDS = ["far better", "better", "a bit better", "hardly better"];

export const keys = [
  ["1 to 4", "left answer: far better, better, a bit, hardly"],
  ["5 to 8", "right answer: hardly better, a bit, better, far better"],
  ["t", "a tie: equally good"],
  ["x", "both are bad"],
];

/** Places 1 to 8 from "left is far better" to "right is far better". */
function judged(assignment, number) {
  const place = number <= 4 ? 0 : 1;
  return { value: { choice: assignment.shown_order[place] }, strength: place === 0 ? 5 - number : number - 4 };
}

function numberOf(assignment, before) {
  if (!before || !before.value || before.strength == null) return 0;
  const place = assignment.shown_order.indexOf(before.value.choice);
  return place === 0 ? 5 - before.strength : 4 + before.strength;
}

/** The page of a pair. `page.done(judgement)` sends; `page.before` is what a draft says. */
export function view(assignment, page) {
  const shown = answers(assignment);
  const chosen = numberOf(assignment, page.before);
  const scale = make("div", { className: "scale", aria: { role: "group", label: "Which answer is better" } });
  for (let number = 1; number <= 8; number++) {
    const word = WORDS[number <= 4 ? number - 1 : 8 - number];
    const label = `${number <= 4 ? "A" : "B"} ${word}`;
    scale.append(button(label, String(number), () => page.done(judged(assignment, number)), { ariaPressed: String(number === chosen) }));
  }
  const other = (choice) => () => page.done({ value: { choice }, strength: null });
  const before = page.before && page.before.value ? page.before.value.choice : null;
  const row = make("div", { className: "row" },
    button("Tie", "t", other("tie"), { ariaPressed: String(before === "tie") }),
    button("Both bad", "x", other("both_bad"), { ariaPressed: String(before === "both_bad") }),
    ...page.common);
  return {
    content: [make("div", { className: "answers" }, ...shown)],
    panel: [make("div", { className: "ends" }, make("span", { textContent: "← left (A)" }), make("span", { textContent: "right (B) →" })), scale, row],
    key(event) {
      const number = Number(event.key);
      if (number >= 1 && number <= 8) return page.done(judged(assignment, number)), true;
      if (event.key === "t") return page.done({ value: { choice: "tie" }, strength: null }), true;
      if (event.key === "x") return page.done({ value: { choice: "both_bad" }, strength: null }), true;
      return false;
    },
    draft: () => ({}),
  };
}
