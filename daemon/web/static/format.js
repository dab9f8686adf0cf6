// How figures read. "·" stands for what is not known.

export const NOTHING = "·";

const numbers = new Map();

/** Seven significant digits: a forecast a fraction of a basis point away still looks different. */
export function decimalsOf(price) {
  const magnitude = Math.floor(Math.log10(Math.abs(price) || 1));
  return Math.min(Math.max(6 - magnitude, 0), 10);
}

export function number(value, decimals = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOTHING;
  let format = numbers.get(decimals);
  if (!format) {
    format = new Intl.NumberFormat("en-GB", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    numbers.set(decimals, format);
  }
  const text = format.format(value);
  return /[1-9]/.test(text) ? text.replace("-", "−") : text.replace("-", "");
}

export function signed(value, decimals) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOTHING;
  const text = number(value, decimals);
  return value > 0 && /[1-9]/.test(text) ? `+${text}` : text;
}

/** Basis points from one price to another. */
export function basisPoints(from, to) {
  return from ? (to / from - 1) * 1e4 : null;
}

export function points(value) {
  return signed(value, value !== null && Math.abs(value) < 9.995 ? 2 : 1);
}

/** Three digits that count, whatever the size. */
export function small(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOTHING;
  if (value === 0) return "0";
  const magnitude = Math.floor(Math.log10(Math.abs(value)));
  return magnitude < -3 ? value.toExponential(1).replace("-", "−") : number(value, Math.max(2 - magnitude, 0));
}

export function milliseconds(value) {
  if (value === null || value === undefined) return NOTHING;
  return value < 10_000 ? `${number(value)} ms` : `${number(value / 1000)} s`;
}

export function duration(ms) {
  if (!Number.isFinite(ms)) return NOTHING;
  if (ms < 1000) return `${number(ms)} ms`;
  if (ms < 10_000) return `${number(ms / 1000, 1)} s`;
  if (ms < 120_000) return `${number(ms / 1000)} s`;
  return ms < 7_200_000 ? `${number(ms / 60_000)} min` : `${number(ms / 3_600_000)} h`;
}

export function clock(ms, decimals = 0) {
  const time = new Date(ms);
  const two = (value) => String(value).padStart(2, "0");
  const text = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return decimals ? `${text}.${String(time.getMilliseconds()).padStart(3, "0").slice(0, decimals)}` : text;
}

/** A session's label: its time of day where it is a time. */
export function session(label) {
  if (label === null) return NOTHING;
  const at = /^\d{4}-\d\d-\d\dT/.test(label) ? Date.parse(label) : NaN;
  return Number.isNaN(at) ? label : clock(at);
}
