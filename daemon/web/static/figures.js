// The figures of the chosen instrument: head, tiles and the table of the present forecast.

import * as format from "./format.js";

/** Skill from fewer outcomes than this is noise and not shown. */
const JUDGED_MIN = 100;
/** The same for a share of outcomes. */
const SHARE_MIN = 20;

const byId = (id) => document.getElementById(id);

/** Show what comes with every forecast. */
export function showForecast(slots) {
  const { last } = slots;
  const pace = slots.pace();
  const decimals = format.decimalsOf(last.price);
  write(byId("facts"), facts(last));
  write(byId("price"), format.number(last.price, decimals), last.price);
  write(byId("now-words"), `made at ${format.clock(last.atMs, 3)} from ${format.number(last.price, decimals)}`);
  byId("now").dataset.id = last.id;
  const rows = rowsOf(byId("now-rows"), last.horizons.length);
  last.horizons.forEach((horizon, index) => {
    const [ahead, mean, change, interval, sigma] = rows[index].cells;
    const { lower, upper, variance } = last;
    write(ahead, `+${horizon}${pace === null ? "" : ` (≈ ${format.duration(pace * horizon)})`}`);
    write(mean, format.number(last.mean[index], decimals), last.mean[index]);
    write(change, format.points(format.basisPoints(last.price, last.mean[index])));
    if (lower && upper) {
      const ends = [lower[index], upper[index]];
      write(interval, ends.map((end) => format.number(end, decimals)).join(" – "), ends.join(" – "));
    } else {
      write(interval, format.NOTHING);
    }
    write(sigma, variance ? format.small(Math.sqrt(variance[index]) * 1e4) : format.NOTHING, variance?.[index]);
  });
}

/** Leave nothing of another instrument, or of another time. */
export function showNoForecast() {
  write(byId("price"), format.NOTHING, null);
  write(byId("now-words"), "");
  delete byId("now").dataset.id;
  rowsOf(byId("now-rows"), 0);
}

export function showNoFigures() {
  for (const name of ["latency", "variance", "skill", "inside"]) {
    write(byId(name), format.NOTHING);
    write(byId(`${name}-words`), "");
  }
}

/** Show what the server works out, twice a second. */
export function showFigures(figures, slots, index) {
  const { last } = slots;
  if (figures.price !== null && figures.price_ts_ms > (last?.atMs ?? 0)) {
    // A tick that no forecast has come for yet.
    write(byId("price"), format.number(figures.price, format.decimalsOf(figures.price)), figures.price);
  }
  write(byId("latency"), format.milliseconds(figures.latency_ms));
  write(byId("latency-words"), "from tick to forecast, median of the last 100");
  figures.horizons.forEach((each, row) => {
    const cells = byId("now-rows").rows[row]?.cells;
    if (cells) write(cells[5], each.judged_count < JUDGED_MIN ? format.NOTHING : format.signed(each.skill, 3), each.skill);
  });
  const chosen = figures.horizons[index];
  const ahead = chosen ? `+${chosen.horizon} ticks` : "";
  write(byId("variance"), chosen && chosen.variance !== null ? `${format.small(chosen.variance * 1e8)} bp²` : format.NOTHING);
  write(byId("variance-words"), `of the last ${figures.variance_count} forecasts, ${ahead}; must not be 0`);
  showSkill(chosen, ahead);
  const { held, count } = last ? slots.inside(index) : { held: 0, count: 0 };
  write(byId("inside"), count < SHARE_MIN ? format.NOTHING : `${format.number((held / count) * 100)} %`);
  write(byId("inside-words"), `of ${format.number(count)} outcomes on the chart, ${ahead}`);
}

function showSkill(chosen, ahead) {
  const isKnown = chosen && chosen.judged_count >= JUDGED_MIN;
  write(byId("skill"), isKnown ? format.signed(chosen.skill, 3) : format.NOTHING);
  const count = format.number(chosen?.judged_count ?? 0);
  const words = isKnown ? `against no change, ${count} outcomes, ${ahead}` : `${count} of ${JUDGED_MIN} outcomes so far, ${ahead}`;
  write(byId("skill-words"), words);
}

/** What stood at one slot: the price, and what had been forecast for it. */
export function legend(slot, slots, index) {
  const decimals = format.decimalsOf(slot.price);
  const price = `${format.clock(slot.atMs, 3)}  price ${format.number(slot.price, decimals)}`;
  const made = slots.forecastFor(slot.number, index);
  if (!made) return price;
  const [mean, lower, upper] = [made.mean, made.lower, made.upper].map((value) => format.number(value, decimals));
  const interval = made.lower === null ? "" : ` (${lower} – ${upper})`;
  return `${price}, forecast ${slot.horizons[index]} ticks before ${mean}${interval}`;
}

function facts(slot) {
  const warm = slot.warm ? "" : ", warming up";
  return `session ${format.session(slot.session)}, step ${format.number(slot.step)}${warm}, model ${slot.model}`;
}

function rowsOf(body, count) {
  while (body.rows.length < count) {
    const row = body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    row.append(head);
    for (let cell = 0; cell < 5; cell += 1) row.insertCell();
  }
  while (body.rows.length > count) body.deleteRow(-1);
  return body.rows;
}

/** Change a text only where it changes; hovering shows the exact value, where there is one. */
function write(element, text, exact) {
  if (element.textContent !== text) element.textContent = text;
  const title = exact === undefined || exact === null ? "" : String(exact);
  if (element.title !== title) element.title = title;
}
