// The forecasts of one instrument as they came, each in the slot of its number. Horizons count ticks and so do numbers: a
// forecast of number n for h ticks ahead is about the price of number n + h. Of a fast instrument the server sends a
// sample, so numbers can be missing.

const SLOTS_MAX = 1500;
/** Over a longer gap nothing can be drawn: what is before it goes. */
const GAP_MAX = 500;
const PACE_SLOTS = 60;

export class Slots {
  constructor() {
    this.clear();
  }

  clear() {
    this.list = [];
    this.byNumber = new Map();
    /** Changes whenever something at the front went away. */
    this.generation = (this.generation ?? 0) + 1;
  }

  get last() {
    return this.list.at(-1) ?? null;
  }

  /** The number of the newest, 0 where there is none. */
  get number() {
    return this.last?.number ?? 0;
  }

  add(entries) {
    for (const { number, latency_ms: latencyMs, forecast } of entries) {
      const last = this.last;
      if (number <= this.number) continue;
      if (last && (number - last.number > GAP_MAX || forecast.horizons.join() !== last.horizons.join())) this.clear();
      // Forecasts of one session share the number at which its first step was, or would have been.
      const slot = { ...forecast, number, latencyMs, atMs: forecast.ts / 1e6, origin: number - forecast.step };
      this.list.push(slot);
      this.byNumber.set(number, slot);
    }
    if (this.list.length > SLOTS_MAX * 1.25) this.#trim();
  }

  #trim() {
    for (const slot of this.list.splice(0, this.list.length - SLOTS_MAX)) this.byNumber.delete(slot.number);
    this.generation += 1;
  }

  /** Milliseconds from one tick to the next, of late; null where it cannot be told. */
  pace() {
    const { list, last } = this;
    const recent = list.slice(-PACE_SLOTS).find((slot) => slot.origin === last.origin);
    return recent && recent !== last ? (last.atMs - recent.atMs) / (last.number - recent.number) : null;
  }

  /** What was forecast for the slot of this number, `horizon` ticks before it; null where nothing was. */
  forecastFor(number, index) {
    const made = this.byNumber.get(number - (this.last?.horizons[index] ?? 0));
    const here = this.byNumber.get(number);
    if (!made || (here && here.origin !== made.origin)) return null;
    return { mean: made.mean[index], lower: made.lower?.[index] ?? null, upper: made.upper?.[index] ?? null };
  }

  /** How many outcomes lie within their intervals, and how many there are. */
  inside(index) {
    let held = 0;
    let count = 0;
    for (const { number, price } of this.list) {
      const forecast = this.forecastFor(number, index);
      if (!forecast || forecast.lower === null) continue;
      count += 1;
      if (forecast.lower <= price && price <= forecast.upper) held += 1;
    }
    return { held, count };
  }
}
