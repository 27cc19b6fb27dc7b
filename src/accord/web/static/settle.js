// Settling a disputed task: a choice between two answers, or what one of the annotators said. And whether it is given out at all.

import { ask, fresh } from "./client.js";

const form = document.getElementById("settle");
const status = document.getElementById("status");
const submission = fresh();

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = event.submitter.value;
  const why = document.getElementById("why").value.trim();
  try {
    const value = given.startsWith("{") ? JSON.parse(given) : { choice: /^\d$/.test(given) ? Number(given) : given };
    await ask("settle", { task: form.dataset.task, submission, value, rationale: why || null });
    status.textContent = "Settled. In snapshots this stands in place of the others.";
    status.className = "";
    for (const button of document.querySelectorAll("main button:not(#retire)")) button.disabled = true;
  } catch (error) {
    status.textContent = error.message;
    status.className = "bad";
  }
});

const retire = document.getElementById("retire");
retire.addEventListener("click", async () => {
  const again = retire.dataset.retired === "yes";
  try {
    await ask("retire", { task: form.dataset.task, again });
    retire.dataset.retired = again ? "no" : "yes";
    retire.textContent = again ? "Give it to nobody any more" : "Give it out again";
    status.textContent = again ? "It is given out again." : "It is given to nobody any more.";
    status.className = "";
  } catch (error) {
    status.textContent = error.message;
    status.className = "bad";
  }
});
