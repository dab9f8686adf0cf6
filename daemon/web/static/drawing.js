// What is drawn around the price: past forecasts and their intervals where they landed, the present forecast as a fan,
// boundaries of sessions. It is worked out together with the points of the price, not when the library paints: by then
// other forecasts may have come, and the two would not fit together.

/** Pixels between the fan's labels, and from the price to the first. */
const LABEL_GAP = 30;

export class Drawing {
  constructor() {
    this.colours = {};
    this.past = [];
    this.fan = [];
    this.sessions = [];
    const draw = (layer) => ({
      zOrder: () => (layer === "below" ? "bottom" : "top"),
      renderer: () => ({ draw: (target) => target.useMediaCoordinateSpace((scope) => this.#draw(layer, scope)) }),
    });
    this.views = [draw("below"), draw("above")];
  }

  /**
   * Work out what is to be drawn.
   * @param index which of the horizons the past forecasts are of
   * @param first number of the slot at the chart's place 0
   */
  take(slots, index, first) {
    const place = (number) => number - first;
    this.past = past(slots, index, place);
    this.fan = fan(slots, place);
    this.sessions = sessions(slots, place);
    this.redraw();
  }

  attached({ chart, series, requestUpdate }) {
    this.chart = chart;
    this.series = series;
    this.redraw = requestUpdate;
  }

  redraw() {}

  paneViews() {
    return this.views;
  }

  /** Make room for all that is drawn between two places. */
  autoscaleInfo(from, to) {
    let low = Infinity;
    let high = -Infinity;
    const include = (value) => {
      if (value === null || value === undefined) return;
      low = Math.min(low, value);
      high = Math.max(high, value);
    };
    for (const { x, mean, lower, upper } of [...this.past, ...this.fan]) {
      if (x < from || x > to) continue;
      [mean, lower, upper].forEach(include);
    }
    return low <= high ? { priceRange: { minValue: low, maxValue: high } } : null;
  }

  #draw(layer, { context, mediaSize }) {
    if (!this.fan.length) return;
    const paint = new Brush(context, mediaSize, this.chart.timeScale(), this.series);
    if (layer === "below") {
      this.#drawPast(paint);
    } else {
      this.#drawMisses(paint);
      this.#drawFan(paint);
    }
  }

  #drawPast(paint) {
    const { accent, soft } = this.colours;
    this.#drawSessions(paint, soft);
    for (const run of runs(this.past)) {
      paint.area(run, accent, 0.13);
      paint.line(run, accent, { alpha: 0.65, width: 1 });
    }
  }

  #drawMisses(paint) {
    for (const { x, lower, upper, outcome } of this.past) {
      if (outcome === null || lower === null || (lower <= outcome && outcome <= upper)) continue;
      paint.dot(x, outcome, this.colours.miss, 2.5);
    }
  }

  #drawSessions(paint, colour) {
    let free = -Infinity;
    for (const { x, words } of this.sessions) {
      const at = paint.x(x);
      paint.rule(at, colour);
      if (at > free) free = at + paint.text(words, at + 4, 12, colour);
    }
  }

  #drawFan(paint) {
    const { accent } = this.colours;
    const { fan } = this;
    paint.area(fan, accent, 0.24);
    paint.line(fan, accent, { alpha: 1, width: 2 });
    let free = paint.x(fan[0].x) + LABEL_GAP / 2;
    for (const { x, mean, upper, ahead } of fan.slice(1)) {
      paint.dot(x, mean, accent, 2.5);
      const at = paint.x(x);
      if (at < free) continue;
      free = at + LABEL_GAP;
      paint.text(`+${ahead}`, at, paint.y(upper ?? mean) - 6, accent, "center");
    }
  }
}

/** Where the forecasts of one horizon landed; `run` tells sessions apart. */
function past(slots, index, place) {
  const { last } = slots;
  const found = [];
  for (const made of slots.list) {
    const number = made.number + made.horizons[index];
    const here = slots.byNumber.get(number);
    // A reset between the two: what was forecast then is about nothing.
    if (made.origin !== (here ?? last).origin) continue;
    found.push({
      x: place(number),
      mean: made.mean[index],
      lower: made.lower?.[index] ?? null,
      upper: made.upper?.[index] ?? null,
      run: made.origin,
      outcome: here?.price ?? null,
    });
  }
  return found;
}

/** The present forecast, from the price it was made at. */
function fan({ last }, place) {
  if (!last) return [];
  const start = { x: place(last.number), mean: last.price, lower: last.price, upper: last.price, ahead: 0 };
  const ahead = last.horizons.map((horizon, index) => ({
    x: place(last.number + horizon),
    mean: last.mean[index],
    lower: last.lower?.[index] ?? null,
    upper: last.upper?.[index] ?? null,
    ahead: horizon,
  }));
  return [start, ...ahead];
}

/** Between which places the state started anew, and why. */
function sessions({ list }, place) {
  const opened = list.filter((slot, at) => at > 0 && slot.origin !== list[at - 1].origin);
  return opened.map((slot) => ({ x: place(slot.number) - 0.5, words: slot.reset ?? "session" }));
}

/** Draws in places and prices. */
class Brush {
  constructor(context, size, scale, series) {
    this.context = context;
    this.size = size;
    this.scale = scale;
    this.series = series;
    // Places are evenly spaced, and those between two ticks are not asked for one by one.
    this.zero = scale.logicalToCoordinate(0);
    this.spacing = scale.logicalToCoordinate(1) - this.zero;
  }

  x(place) {
    return this.zero + place * this.spacing;
  }

  y(price) {
    return this.series.priceToCoordinate(price);
  }

  area(points, colour, alpha) {
    const known = this.#visible(points).filter(({ lower }) => lower !== null);
    if (known.length < 2) return;
    this.#with({ fillStyle: colour, globalAlpha: alpha }, (context) => {
      context.beginPath();
      for (const { x, upper } of known) context.lineTo(this.x(x), this.y(upper));
      for (const { x, lower } of known.reverse()) context.lineTo(this.x(x), this.y(lower));
      context.fill();
    });
  }

  line(points, colour, { alpha, width }) {
    this.#with({ strokeStyle: colour, globalAlpha: alpha, lineWidth: width, lineJoin: "round" }, (context) => {
      context.beginPath();
      for (const { x, mean } of this.#visible(points)) context.lineTo(this.x(x), this.y(mean));
      context.stroke();
    });
  }

  dot(place, price, colour, radius) {
    const x = this.x(place);
    if (x < 0 || x > this.size.width) return;
    this.#with({ fillStyle: colour }, (context) => {
      context.beginPath();
      context.arc(x, this.y(price), radius, 0, 2 * Math.PI);
      context.fill();
    });
  }

  rule(x, colour) {
    this.#with({ strokeStyle: colour, globalAlpha: 0.6 }, (context) => {
      context.setLineDash([3, 4]);
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, this.size.height);
      context.stroke();
    });
  }

  /** Write a text; returns its width. */
  text(words, x, y, colour, align = "left") {
    return this.#with({ fillStyle: colour, textAlign: align, font: "11px system-ui, sans-serif" }, (context) => {
      context.fillText(words, x, y);
      return context.measureText(words).width + 8;
    });
  }

  /** Leave out what is off the picture, but for one point on either side. */
  #visible(points) {
    const from = points.findIndex(({ x }) => this.x(x) >= 0);
    const to = points.findLastIndex(({ x }) => this.x(x) <= this.size.width);
    return from < 0 || to < 0 ? [] : points.slice(Math.max(from - 1, 0), to + 2);
  }

  #with(settings, work) {
    const { context } = this;
    context.save();
    Object.assign(context, settings);
    const result = work(context);
    context.restore();
    return result;
  }
}

function runs(points) {
  const found = [];
  for (const point of points) {
    const current = found.at(-1);
    if (current && current[0].run === point.run) current.push(point);
    else found.push([point]);
  }
  return found;
}
