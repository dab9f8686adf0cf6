// The stream of events, opened again whenever it breaks: one path for a server that restarts, a laptop that slept and a
// choice that changed.

const RETRY_MS = 1000;
const RETRY_MS_MAX = 8000;
/** The server speaks twice a second; a connection that is silent for so long is dead, although nobody said so. */
const SILENCE_MS = 10_000;

export class Stream {
  #events = null;
  #timer = 0;
  #retryMs = RETRY_MS;

  /**
   * @param ask returns the query of the next connection
   * @param hear takes (name of the event, its content)
   * @param tell takes "open" or "lost"
   */
  constructor(ask, hear, tell) {
    this.ask = ask;
    this.hear = hear;
    this.tell = tell;
  }

  open() {
    this.close();
    const events = new EventSource(`events?${new URLSearchParams(this.ask())}`);
    this.#events = events;
    this.#expect();
    for (const name of ["board", "forecasts"]) {
      events.addEventListener(name, (event) => this.#take(name, event.data));
    }
    events.onerror = () => this.#lose();
  }

  close() {
    clearTimeout(this.#timer);
    this.#events?.close();
    this.#events = null;
  }

  #take(name, data) {
    this.#retryMs = RETRY_MS;
    this.#expect();
    this.tell("open");
    this.hear(name, JSON.parse(data));
  }

  #expect() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#lose(), SILENCE_MS);
  }

  #lose() {
    this.close();
    this.tell("lost");
    this.#timer = setTimeout(() => this.open(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
  }
}
