// The page: what is chosen, what came, and one drawing of it per frame.

import { Chart } from "./chart.js";
import { legend, showFigures, showForecast, showNoFigures, showNoForecast } from "./figures.js";
import { milliseconds, number } from "./format.js";
import { List } from "./list.js";
import { Slots } from "./slots.js";
import { describe } from "./state.js";
import { Stream } from "./stream.js";

const SEARCH_MS = 150;
const HORIZON_WANTED = 10;
/** Rates and times of a topic that has been quiet for longer say nothing about now. */
const QUIET_MS = 10_000;

const byId = (id) => document.getElementById(id);
const address = new URL(location.href);

const page = {
  instrument: address.searchParams.get("instrument") ?? "",
  /** Horizon that was chosen, in ticks; 0 for the one nearest to ten. */
  horizon: Number(address.searchParams.get("horizon")) || 0,
  search: "",
  paused: false,
  connection: "connecting",
  board: null,
  epoch: "",
  /** The slot under the pointer, null where there is none. */
  hovered: null,
};
const slots = new Slots();
/** What has changed since the last frame: "board", "forecasts" or "choice". */
const changed = new Set();

const chart = new Chart(byId("chart"), slots, (slot) => {
  page.hovered = slot;
  showLegend();
});
const list = new List(byId("rows"), choose);
const stream = new Stream(
  () => ({ instrument: page.instrument, search: page.search, epoch: page.epoch, after: slots.number }),
  hear,
  (connection) => {
    if (page.connection === connection) return;
    page.connection = connection;
    later("board");
  },
);

function hear(name, content) {
  if (name === "board") {
    if (content.epoch !== page.epoch) {
      page.epoch = content.epoch;
      slots.clear();
      later("forecasts");
    }
    page.board = content;
    page.instrument ||= content.instrument.name;
  } else if (content.instrument === page.instrument) {
    slots.add(content.forecasts);
  }
  later(name);
}

/** Draw with the next frame, however much comes until then. */
function later(what) {
  if (!changed.size) requestAnimationFrame(draw);
  changed.add(what);
}

function draw() {
  const isChoice = changed.has("choice");
  const isBoard = changed.has("board") || isChoice;
  const isForecasts = changed.has("forecasts") || isChoice;
  changed.clear();
  if (isBoard) drawBoard();
  if (isForecasts) {
    drawHorizons();
    chart.update(horizonIndex());
    if (slots.last) showForecast(slots);
    else showNoForecast();
    showLegend();
  }
  if (isBoard && page.board) drawFigures(page.board.instrument);
  byId("newest").hidden = !slots.last || chart.isAtNow();
}

function drawFigures(figures) {
  const isOfChosen = figures.name === page.instrument;
  if (isOfChosen) showFigures(figures, slots, horizonIndex());
  else showNoFigures();
  if (slots.last) return;
  const isSeen = isOfChosen && figures.price !== null;
  byId("facts").textContent = isSeen ? "No forecast of it has been seen" : "No tick of it has been seen";
}

function drawBoard() {
  const { board } = page;
  const { tone, words } = describe(page.connection, board, page.paused);
  const state = byId("state");
  state.dataset.tone = tone;
  if (state.textContent !== words) state.textContent = words;
  document.body.dataset.stale = String(tone === "bad" || page.paused);
  if (!board) return;
  const isQuiet = (role) => board.now_ms - (board.newest_ms[role] ?? 0) > QUIET_MS;
  for (const role of ["ticks", "forecasts"]) {
    const rate = isQuiet(role) ? 0 : board.per_second[role];
    byId(`${role}-rate`).textContent = number(rate, rate > 0 && rate < 100 ? 1 : 0);
    byId(`${role}-topic`).textContent = board.topics[role];
  }
  byId("ticks-topic-again").textContent = board.topics.ticks;
  byId("latency-p50").textContent = milliseconds(board.latency_ms.p50);
  byId("latency-p99").textContent = milliseconds(board.latency_ms.p99);
  const isEmpty = board.instrument_count === 0 && page.connection === "open";
  byId("empty").hidden = !isEmpty;
  byId("shown").hidden = isEmpty || board.instrument_count === 0;
  byId("name").textContent = page.instrument;
  document.title = page.instrument ? `${page.instrument}, tickcast live` : "tickcast live";
  const horizon = board.rows.find((row) => row.horizon !== null)?.horizon;
  byId("rows-horizon").textContent = horizon ? `+${horizon} ticks, bp` : "expected, bp";
  list.show(board.rows, page.instrument);
  byId("more").textContent = moreWords(board);
}

function moreWords({ found_count: found, instrument_count: all, rows }) {
  if (page.search && !found) return `None of ${number(all)} instruments holds “${page.search}”`;
  if (found > rows.length) return `${number(found - rows.length)} more: search for them`;
  return page.search ? `${number(found)} of ${number(all)} instruments` : "";
}

/** The buttons follow the model's horizons. */
function drawHorizons() {
  const box = byId("horizons");
  const horizons = slots.last?.horizons ?? [];
  box.hidden = !horizons.length;
  if (box.dataset.horizons !== horizons.join()) {
    box.dataset.horizons = horizons.join();
    box.querySelectorAll("label").forEach((label) => label.remove());
    for (const horizon of horizons) box.append(horizonButton(horizon));
  }
  const index = horizonIndex();
  box.querySelectorAll("input").forEach((input, at) => {
    input.checked = at === index;
  });
  byId("past-words").textContent = `forecast ${horizons[index] ?? ""} ticks before`;
}

function horizonButton(horizon) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  input.type = "radio";
  input.name = "horizon";
  input.addEventListener("change", () => {
    page.horizon = horizon;
    remember();
    later("choice");
  });
  const text = document.createElement("span");
  text.textContent = String(horizon);
  label.append(input, text);
  return label;
}

function horizonIndex() {
  const horizons = slots.last?.horizons ?? [];
  const wanted = page.horizon || HORIZON_WANTED;
  const distances = horizons.map((horizon) => Math.abs(horizon - wanted));
  return Math.max(distances.indexOf(Math.min(...distances)), 0);
}

function showLegend() {
  const slot = page.hovered ?? slots.last;
  byId("legend").textContent = slot ? legend(slot, slots, horizonIndex()) : "";
}

function choose(name) {
  if (name === page.instrument) return;
  page.instrument = name;
  page.hovered = null;
  slots.clear();
  remember();
  later("choice");
  if (page.paused) pause(false);
  else stream.open();
}

function pause(on) {
  page.paused = on;
  const button = byId("pause");
  button.setAttribute("aria-pressed", String(on));
  button.textContent = on ? "Go on" : "Pause";
  if (on) stream.close();
  else stream.open();
  later("board");
}

/** Keep the choice in the address, so that it can be kept and passed on. */
function remember() {
  const query = new URLSearchParams({ instrument: page.instrument });
  if (page.horizon) query.set("horizon", page.horizon);
  history.replaceState(null, "", `?${query}`);
}

function showTheme() {
  byId("theme").textContent = document.documentElement.dataset.theme === "dark" ? "Light" : "Dark";
}

let searching = 0;
byId("search").addEventListener("input", (event) => {
  page.search = event.target.value.trim();
  clearTimeout(searching);
  searching = setTimeout(() => page.paused || stream.open(), SEARCH_MS);
});
byId("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && list.names.length) choose(list.names[0]);
  if (event.key === "ArrowDown") {
    byId("rows").querySelector("a[tabindex='0']")?.focus();
    event.preventDefault();
  }
});
byId("pause").addEventListener("click", () => pause(!page.paused));
byId("theme").addEventListener("click", () => globalThis.switchTheme());
byId("newest").addEventListener("click", () => {
  chart.goToNow();
  later("board");
});
addEventListener("theme", showTheme);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=search]")) return;
  if (event.key === "p") pause(!page.paused);
  else if (event.key === "d") globalThis.switchTheme();
  else if (event.key === "/") {
    byId("search").focus();
    event.preventDefault();
  }
});

showTheme();
stream.open();
