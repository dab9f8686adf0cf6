// The chart: one place per tick, the price as a line of the library, all else drawn by `Drawing`.

import { createChart, CrosshairMode, LineSeries } from "./vendor/lightweight-charts/lightweight-charts.standalone.production.mjs";
import { Drawing } from "./drawing.js";
import { clock, decimalsOf, number } from "./format.js";

/** Places right of the newest tick, for the fan; horizons beyond it are reached by scrolling. */
const AHEAD_MAX = 120;
/** Beyond the last horizon there is room for its label. */
const MARGIN = 1.15;
/** Behind the newest tick there are three times the places of the fan, and at least one for so many pixels. */
const BEHIND_PER_AHEAD = 3;
const PIXELS_PER_PLACE = 5;
/** Faster than this, seconds alone do not tell two labels apart. */
const FAST_MS = 150;

export class Chart {
  #shown = { generation: -1, number: 0 };
  #first = 0;
  #horizons = "";

  /** @param hover takes the slot under the pointer, null where there is none */
  constructor(element, slots, hover) {
    this.element = element;
    this.slots = slots;
    this.chart = createChart(element, {
      autoSize: true,
      layout: { attributionLogo: false, fontFamily: getComputedStyle(document.body).fontFamily },
      crosshair: { mode: CrosshairMode.Magnet },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.08, bottom: 0.06 } },
      timeScale: { borderVisible: false, tickMarkMaxCharacterLength: 10, minBarSpacing: 0.3 },
      localization: {
        priceFormatter: (price) => number(price, decimalsOf(this.slots.last?.price ?? price)),
        timeFormatter: (time) => this.#timeOf(time, 3),
      },
    });
    this.series = this.chart.addSeries(LineSeries, { lineWidth: 2, priceLineVisible: false, crosshairMarkerRadius: 3 });
    this.drawing = new Drawing();
    this.series.attachPrimitive(this.drawing);
    this.chart.subscribeCrosshairMove(({ time }) => hover(time === undefined ? null : slots.byNumber.get(time) ?? null));
    element.addEventListener("keydown", (event) => this.#press(event));
    addEventListener("theme", () => this.#paint());
    this.#paint();
  }

  /**
   * Draw what came since the last time.
   * @param index which of the horizons the past forecasts are of
   */
  update(index) {
    const { slots, series } = this;
    if (!slots.last) {
      series.setData([]);
      this.drawing.take(slots, index, 0);
      this.#shown = { generation: -1, number: 0 };
      this.#horizons = ""; // whatever comes next is framed anew
      return;
    }
    if (slots.generation !== this.#shown.generation) this.#setAll();
    else for (const point of this.#points(this.#shown.number)) series.update(point);
    this.#shown = { generation: slots.generation, number: slots.number };
    this.drawing.take(slots, index, this.#first);
    if (slots.last.horizons.join() !== this.#horizons) this.#frame();
  }

  isAtNow() {
    return this.chart.timeScale().scrollPosition() > 0;
  }

  goToNow() {
    this.#frame();
  }

  #setAll() {
    this.#first = this.slots.list[0].number;
    // The library keeps the labels of places it has seen; a new function makes it ask again.
    this.chart.timeScale().applyOptions({ tickMarkFormatter: (time) => this.#timeOf(time, this.#labelDecimals()) });
    this.series.setData([...this.#points(this.#first - 1)]);
  }

  /** Yield the points after a number; places of ticks that were not sent stay empty. */
  *#points(after) {
    const { list } = this.slots;
    let from = list.length;
    while (from > 0 && list[from - 1].number > after) from -= 1;
    let place = after;
    for (const { number: at, price } of list.slice(from)) {
      for (place += 1; place < at; place += 1) yield { time: place };
      yield { time: at, value: price };
    }
  }

  /** Put the newest tick where the fan has room. */
  #frame() {
    const { horizons } = this.slots.last;
    this.#horizons = horizons.join();
    const width = this.chart.timeScale().width() || this.element.clientWidth;
    const ahead = Math.min(Math.max(...horizons), AHEAD_MAX) * MARGIN + 2;
    const behind = Math.max(ahead * BEHIND_PER_AHEAD, width / PIXELS_PER_PLACE);
    this.chart.timeScale().applyOptions({ rightOffset: ahead, barSpacing: width / (ahead + behind) });
    this.chart.timeScale().scrollToPosition(ahead, false);
  }

  #timeOf(place, decimals) {
    const slot = this.slots.byNumber.get(place);
    return slot ? clock(slot.atMs, decimals) : "";
  }

  #labelDecimals() {
    const pace = this.slots.pace();
    return pace !== null && pace < FAST_MS ? 1 : 0;
  }

  #press(event) {
    const scale = this.chart.timeScale();
    const step = event.shiftKey ? 100 : 10;
    const zoom = (factor) => scale.applyOptions({ barSpacing: scale.options().barSpacing * factor });
    const actions = {
      ArrowLeft: () => scale.scrollToPosition(scale.scrollPosition() - step, false),
      ArrowRight: () => scale.scrollToPosition(scale.scrollPosition() + step, false),
      "+": () => zoom(1.25),
      "-": () => zoom(0.8),
      End: () => this.goToNow(),
    };
    if (!actions[event.key]) return;
    actions[event.key]();
    event.preventDefault();
  }

  #paint() {
    const styles = getComputedStyle(document.documentElement);
    const colour = (name) => styles.getPropertyValue(`--${name}`).trim();
    const line = { color: colour("line") };
    const cross = { color: colour("soft"), labelBackgroundColor: colour("soft") };
    this.chart.applyOptions({
      layout: { background: { color: colour("panel") }, textColor: colour("soft") },
      grid: { vertLines: { visible: false }, horzLines: line },
      crosshair: { vertLine: cross, horzLine: cross },
    });
    this.series.applyOptions({ color: colour("ink") });
    this.drawing.colours = Object.fromEntries(["accent", "soft", "miss"].map((name) => [name, colour(name)]));
    this.drawing.redraw();
  }
}
