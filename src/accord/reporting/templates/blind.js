"use strict";
(function () {
  const pairs = JSON.parse(document.getElementById("pairs").textContent);
  const box = document.getElementById("judge");
  if (!pairs.length || !box) return;
  const count = { after: 0, before: 0, tie: 0 };
  let at = 0;
  const make = (tag, text, name) => {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    if (name) node.className = name;
    return node;
  };
  const show = () => {
    box.replaceChildren();
    if (at >= pairs.length) {
      box.append(make("p", `You preferred the trained model ${count.after} times, the model before it ${count.before} times, neither ${count.tie} times.`, "sentence"));
      const again = make("button", "Judge again");
      again.addEventListener("click", () => { at = 0; count.after = count.before = count.tie = 0; show(); });
      box.append(again);
      return;
    }
    const pair = pairs[at];
    box.append(make("p", `${at + 1} of ${pairs.length}: ${pair.prompt}`, "prompt"));
    const sides = make("div", "", "pair");
    sides.append(make("div", pair.left), make("div", pair.right));
    box.append(sides);
    const choices = make("div", "", "choices");
    for (const [side, label] of [["left", "Left is better"], ["tie", "Neither"], ["right", "Right is better"]]) {
      const button = make("button", label);
      button.addEventListener("click", () => {
        count[side === "tie" ? "tie" : side === pair.after ? "after" : "before"] += 1;
        at += 1;
        show();
      });
      choices.append(button);
    }
    box.append(choices);
  };
  show();
})();
