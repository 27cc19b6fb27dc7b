// Requests to this site, and answers that survive a lost connection or a closed tab.

const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
const OUTBOX = `accord.outbox.${meta("annotator")}`;
const WAIT = 20000;

/** What went wrong: `code` is the server's, or "network" where nothing came back. */
export class Refused extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}

/** Ask the server; body undefined is a GET. */
export async function ask(path, body) {
  let reply;
  try {
    reply = await fetch(`/api/${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": meta("csrf") },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(WAIT),
    });
  } catch {
    throw new Refused("network", "No connection.");
  }
  const found = await reply.json().catch(() => ({ code: "network", error: "The reply was cut off." }));
  if (reply.status === 429 || reply.status >= 500) throw new Refused("network", found.error || "The server is busy.");
  if (!reply.ok) throw new Refused(found.code, found.error);
  return found;
}

/** A new id: the same answer sent twice is stored once. */
export const fresh = () => crypto.randomUUID();

const read = () => JSON.parse(localStorage.getItem(OUTBOX) || "[]");
const write = (waiting) => localStorage.setItem(OUTBOX, JSON.stringify(waiting));

/** How many answers wait to be sent. */
export const waiting = () => read().length;

/** Keep an answer here until the server says that it has it. */
export function put(body) {
  write([...read(), body]);
}

/**
 * Send what waits, oldest first. Resolves once nothing waits; calls `told(left)` after each try that failed, and `refused(error)` for an
 * answer that the server will never take. Only one tab sends at a time.
 */
export async function flush(told, refused) {
  for (let pause = 1000; ; pause = Math.min(pause * 2, 15000)) {
    try {
      await navigator.locks.request(OUTBOX, async () => {
        for (let all = read(); all.length; all = read()) {
          try {
            await ask("submit", all[0]);
          } catch (error) {
            if (error.code === "network") throw error;
            refused(error);
          }
          write(read().filter((one) => one.submission !== all[0].submission));
        }
      });
      return;
    } catch (error) {
      told(read().length);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        window.addEventListener("online", () => { clearTimeout(timer); resolve(); }, { once: true });
      });
    }
  }
}
