// Several answers: a rank each, equal ranks are ties.

import { answers, button, digit, LETTERS, make, mover } from "./dom.js";

export const keys = [
  ["j, k", "next and previous answer"],
  ["1 to 9", "the rank of the answer you are at; equal ranks are ties"],
  ["Enter", "send, once each answer has a rank"],
  ["e", "write a better answer yourself"],
];

/** Ranks as the data want them: the best is 1, ties share a rank, and the next rank counts them. */
export function standing(ranks) {
  return ranks.map((rank) => 1 + ranks.filter((other) => other < rank).length);
}

/** The page of a ranking. `page.done(judgement)` sends; `page.changed()` keeps a draft. */
export function view(assignment, page) {
  const count = assignment.answers.length;
  const before = page.before.value && page.before.value.ranks;
  const ranks = assignment.shown_order.map((index) => (before ? before[index] : null));
  const shown = answers(assignment);
  const move = mover(shown);
  const send = button("Send", "Enter", () => submit());
  const marks = shown.map((answer, place) => {
    const row = make("div", { className: "rank", aria: { role: "radiogroup", label: `Rank of answer ${LETTERS[place]}` } });
    for (let rank = 1; rank <= count; rank++) {
      row.append(make("button", {
        type: "button", textContent: String(rank), onclick: () => give(place, rank), aria: { role: "radio", label: `Rank ${rank} for answer ${LETTERS[place]}` },
      }));
    }
    answer.append(row);
    return row;
  });

  function paint() {
    marks.forEach((row, place) => [...row.children].forEach((one, index) => one.setAttribute("aria-checked", String(ranks[place] === index + 1))));
    send.disabled = ranks.includes(null);
  }
  function give(place, rank) {
    ranks[place] = rank;
    paint();
    page.changed();
  }
  /** By the task's own order of answers, whatever was shown where. */
  function byAnswer() {
    const found = Array(count).fill(null);
    assignment.shown_order.forEach((index, place) => { found[index] = ranks[place]; });
    return found;
  }
  function submit() {
    if (ranks.includes(null)) return page.say(`Answer ${LETTERS[ranks.indexOf(null)]} has no rank yet.`, true);
    page.done({ value: { ranks: standing(byAnswer()) }, strength: null });
  }
  paint();
  return {
    content: [make("div", { className: "answers" }, ...shown)],
    panel: [make("div", { className: "row" }, send, page.edit, ...page.common)],
    write: page.write,
    key(event) {
      if (move(event)) return true;
      if (event.key === "Enter" && event.target.tagName !== "BUTTON") return submit(), true;
      const rank = digit(event);
      if (rank >= 1 && rank <= count) {
        give(move.at, rank);
        if (move.at < count - 1) move.to(move.at + 1);
        return true;
      }
      return false;
    },
    draft: () => ({ value: { ranks: byAnswer() } }),
  };
}
