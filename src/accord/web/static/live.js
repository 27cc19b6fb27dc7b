// Streams of events that come back by themselves, and times that grow older.

/**
 * Listen to a stream until it is closed. The browser asks again when it breaks, from the last event it had.
 * @param handlers by the event's name: (data) => void.
 * @param told (lost) => void: whether the connection is lost.
 * @param refused () => void: the server will not have us back.
 */
export function listen(path, handlers, told, refused) {
  const source = new EventSource(path);
  for (const [name, handle] of Object.entries(handlers)) source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  source.addEventListener("open", () => told(false));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) refused();
    else told(true);
  });
  window.addEventListener("pagehide", () => source.close());
  return source;
}

/** Seconds in the largest unit that gives more than one, as the server says it. */
export function duration(seconds) {
  for (const [unit, size] of [["days", 86400], ["hours", 3600], ["minutes", 60]]) if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`;
  return `${Math.round(seconds)} seconds`;
}

/** Keep every `<time data-written>` true. */
export function growOlder() {
  const renew = () => {
    for (const time of document.querySelectorAll("time[data-written]")) {
      time.textContent = `${duration(Math.max(0, Date.now() / 1000 - Number(time.dataset.written)))} ago`;
    }
  };
  renew();
  setInterval(renew, 5000);
  return renew;
}
