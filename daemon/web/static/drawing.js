// What is drawn around the price: past forecasts and their intervals where they landed, the present forecast as a fan,
// boundaries of sessions. Everything is computed anew for each picture, from the slots alone.

/** Pixels between the fan's labels, and from the price to the first. */
const LABEL_GAP = 30;

export class Drawing {
  /** @param place returns the chart's place of a number */
  constructor(slots, place) {
    this.slots = slots;
    this.place = place;
    this.index = 0;
    this.colours = {};
    const draw = (layer) => ({
      zOrder: () => (layer === "below" ? "bottom" : "top"),
      renderer: () => ({ draw: (target) => target.useMediaCoordinateSpace((scope) => this.#draw(layer, scope)) }),
    });
    this.views = [draw("below"), draw("above")];
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
    for (const { x, mean, lower, upper } of [...this.#past(), ...this.#fan()]) {
      if (x < from || x > to) continue;
      [mean, lower, upper].forEach(include);
    }
    return low <= high ? { priceRange: { minValue: low, maxValue: high } } : null;
  }

  /** Where the forecasts of one horizon landed; `run` tells sessions apart. */
  #past() {
    const { slots, index } = this;
    const horizon = slots.last?.horizons[index] ?? 0;
    const found = [];
    for (const made of slots.list) {
      const here = slots.byNumber.get(made.number + horizon);
      const crosses = here ? here.origin !== made.origin : made.origin !== slots.last.origin;
      if (crosses) continue;
      found.push({
        x: this.place(made.number + horizon),
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
  #fan() {
    const { last } = this.slots;
    if (!last) return [];
    const start = { x: this.place(last.number), mean: last.price, lower: last.price, upper: last.price, ahead: 0 };
    const ahead = last.horizons.map((horizon, index) => ({
      x: this.place(last.number + horizon),
      mean: last.mean[index],
      lower: last.lower?.[index] ?? null,
      upper: last.upper?.[index] ?? null,
      ahead: horizon,
    }));
    return [start, ...ahead];
  }

  #draw(layer, { context, mediaSize }) {
    if (!this.slots.last) return;
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
    for (const run of runs(this.#past())) {
      paint.area(run, accent, 0.13);
      paint.line(run, accent, { alpha: 0.65, width: 1 });
    }
  }

  #drawMisses(paint) {
    for (const { x, lower, upper, outcome } of this.#past()) {
      if (outcome === null || lower === null || (lower <= outcome && outcome <= upper)) continue;
      paint.dot(x, outcome, this.colours.miss, 2.5);
    }
  }

  #drawSessions(paint, colour) {
    let before = null;
    let free = -Infinity;
    for (const slot of this.slots.list) {
      if (before && slot.origin !== before.origin) {
        const x = paint.x(this.place(slot.number) - 0.5);
        paint.rule(x, colour);
        if (x > free) free = x + paint.text(slot.reset === "session" || !slot.reset ? "session" : slot.reset, x + 4, 12, colour);
      }
      before = slot;
    }
  }

  #drawFan(paint) {
    const { accent } = this.colours;
    const fan = this.#fan();
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
