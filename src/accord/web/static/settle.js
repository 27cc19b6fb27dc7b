// Settling a disputed task: a choice, ranks or a rating of one's own, or what one of the annotators said. And whether it is given out at all.

import { ask, fresh } from "./client.js";
import { say } from "./dom.js";
import { standing } from "./ranking.js";

const form = document.getElementById("settle");
const retire = document.getElementById("retire");
const { task } = retire.dataset;
const submission = fresh();

/** What a button stands for: what somebody said, one of the four choices of a pair, or what is chosen beside it. */
function valueOf(given) {
  if (given.startsWith("{")) return JSON.parse(given);
  if (given !== "own") return { choice: /^\d$/.test(given) ? Number(given) : given };
  if (form.dataset.kind === "rating") return { rating: Number(form.elements.rating.value) };
  return { ranks: standing([...form.querySelectorAll("[name=rank]")].map((one) => Number(one.value))) };
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const why = document.getElementById("why").value.trim();
  try {
    await ask("settle", { task, submission, value: valueOf(event.submitter.value), rationale: why || null });
    say("Settled. In snapshots this stands in place of the others.");
    for (const button of document.querySelectorAll("main button:not(#retire)")) button.disabled = true;
  } catch (error) {
    say(error.message, true);
  }
});

document.getElementById("read")?.addEventListener("click", async () => {
  try {
    await ask("read", { tasks: [task] });
    location.reload();
  } catch (error) {
    say(error.message, true);
  }
});

retire.addEventListener("click", async () => {
  const again = retire.dataset.retired === "yes";
  try {
    await ask("retire", { task, again });
    retire.dataset.retired = again ? "no" : "yes";
    retire.textContent = again ? "Give it to nobody any more" : "Give it out again";
    say(again ? "It is given out again." : "It is given to nobody any more.");
  } catch (error) {
    say(error.message, true);
  }
});
