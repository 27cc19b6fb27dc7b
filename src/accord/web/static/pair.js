// Two answers: which is better and how clearly, a tie, or both bad.

import { answers, button, make, mover } from "./dom.js";

const WORDS = ["far better", "better", "a bit better", "hardly better"];

export const keys = [
  ["1 to 4", "left answer: far better, better, a bit, hardly"],
  ["5 to 8", "right answer: hardly better, a bit, better, far better"],
  ["t", "a tie: equally good"],
  ["x", "both are bad"],
  ["j, k", "next and previous answer"],
  ["e", "write a better answer yourself"],
];

/** Places 1 to 8 from "left is far better" to "right is far better". */
export function judged(assignment, number) {
  const place = number <= 4 ? 0 : 1;
  return { value: { choice: assignment.shown_order[place] }, strength: place === 0 ? 5 - number : number - 4 };
}

export function numberOf(assignment, before) {
  if (!before || !before.value || before.strength == null) return 0;
  const place = assignment.shown_order.indexOf(before.value.choice);
  return place === 0 ? 5 - before.strength : 4 + before.strength;
}

/** Eight buttons; `act(number)` is called with the one that was pressed. */
export function scale(act, chosen, label) {
  const found = make("div", { className: "scale", aria: { role: "group", label } });
  for (let number = 1; number <= 8; number++) {
    const word = WORDS[number <= 4 ? number - 1 : 8 - number];
    found.append(button(`${number <= 4 ? "A" : "B"} ${word}`, String(number), () => act(number), { ariaPressed: String(number === chosen) }));
  }
  return found;
}

/** The page of a pair. `page.done(judgement)` sends; `page.before` is what a draft says. */
export function view(assignment, page) {
  const shown = answers(assignment);
  const move = mover(shown);
  const other = (choice) => () => page.done({ value: { choice }, strength: null });
  const before = page.before.value ? page.before.value.choice : null;
  const row = make("div", { className: "row" },
    button("Tie", "t", other("tie"), { ariaPressed: String(before === "tie") }),
    button("Both bad", "x", other("both_bad"), { ariaPressed: String(before === "both_bad") }),
    page.edit, ...page.common);
  return {
    content: [make("div", { className: "answers" }, ...shown)],
    panel: [make("div", { className: "ends" }, make("span", { textContent: "← left (A)" }), make("span", { textContent: "right (B) →" })),
      scale((number) => page.done(judged(assignment, number)), numberOf(assignment, page.before), "Which answer is better"), row],
    write: page.write,
    key(event) {
      const number = Number(event.key);
      if (number >= 1 && number <= 8) return page.done(judged(assignment, number)), true;
      if (event.key === "t") return other("tie")(), true;
      if (event.key === "x") return other("both_bad")(), true;
      return move(event);
    },
    draft: () => ({}),
  };
}
