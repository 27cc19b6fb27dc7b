// Settling a disputed pair.

import { ask, fresh } from "./client.js";

const form = document.getElementById("settle");
const status = document.getElementById("status");
const submission = fresh();

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = event.submitter.value;
  const why = document.getElementById("why").value.trim();
  try {
    await ask("settle", { task: form.dataset.task, submission, value: { choice: /^\d$/.test(given) ? Number(given) : given }, rationale: why || null });
    status.textContent = "Settled. In snapshots this stands in place of the others.";
    status.className = "";
    for (const button of form.querySelectorAll("button")) button.disabled = true;
  } catch (error) {
    status.textContent = error.message;
    status.className = "bad";
  }
});
