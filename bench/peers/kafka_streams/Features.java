/** The 14 default columns, each under its running scale, as in daemon/core/features.py. */
final class Features {
    static final int AVERAGES = 6;

    private static final double RUNNING_WEIGHT = 0.0002;
    private static final double VOLATILITY_WEIGHT = 0.0001;
    private static final double CLIP = 10;
    private static final double RUNNING_VARIANCE_MIN = 1e-30;
    private static final double VOLATILITY_FLOOR = 0.01;
    /** Which column each moving average follows, and over how many ticks. */
    private static final int[] FOLLOWS = {0, 0, 4, 2, 2, 5};
    private static final int[] SPANS = {5, 20, 10, 5, 20, 5};

    private Features() {}

    /** Moves the instrument on by a tick, its quote and price included, and writes the model's input to `x`. */
    static void update(Model model, Tick tick, Held held, boolean opened, float[] x) {
        if (!Double.isNaN(tick.bid)) {
            held.bid = tick.bid;
            held.ask = tick.ask;
            held.bidSize = tick.bidSize;
            held.askSize = tick.askSize;
        }
        boolean quoted = !Double.isNaN(held.bid);
        boolean traded = !Double.isNaN(tick.price);
        double price = quoted ? held.bid / 2 + held.ask / 2 : tick.price;
        double logReturn = opened ? 0 : Math.log(price / held.price);
        double spread = quoted ? (held.ask - held.bid) / price : 0;
        double imbalance = 0;
        if (held.bidSize + held.askSize > 0) {  // false where a size is missing
            imbalance = (held.bidSize - held.askSize) / (held.bidSize + held.askSize);
        }
        double signedSize = 0;
        if (traded && tick.aggressor != null) {
            double size = Math.log1p(Double.isNaN(tick.size) ? 1 : tick.size);
            signedSize = tick.aggressor.equals("buy") ? size : -size;
        }
        double sweep = 0;
        if (traded && quoted && !opened && (tick.price < held.bid || tick.price > held.ask)) {
            sweep = (tick.price - (tick.price > held.ask ? held.ask : held.bid)) / price;
        }
        double wait = opened ? 0 : Math.log1p(Math.max(tick.ts - held.lastTs, 0) * 1e-6);
        double[] cells = held.cells;
        double[] values = {logReturn, spread, imbalance, spread * imbalance / 2, signedSize, sweep, traded ? 1 : 0,
            wait, 0, 0, 0, 0, 0, 0};
        int averagesAt = 1 + 2 * model.columns;
        for (int i = 0; i < AVERAGES; i++) {
            double before = cells[averagesAt + i];
            cells[averagesAt + i] = before + 2.0 / (SPANS[i] + 1) * (values[FOLLOWS[i]] - before);
            values[8 + i] = cells[averagesAt + i];
        }
        for (int i = 0; i < model.columns; i++) {
            double mean = cells[1 + 2 * i];
            double variance = cells[2 + 2 * i];
            double std = Math.sqrt(variance);
            double scaled = Math.max(-CLIP, Math.min(CLIP, (values[i] - mean) / std));
            x[i] = (float) scaled;
            double moved = RUNNING_WEIGHT * scaled;
            cells[1 + 2 * i] = mean + moved * std;
            cells[2 + 2 * i] = Math.max(RUNNING_VARIANCE_MIN, variance * (1 - RUNNING_WEIGHT) * (1 + moved * scaled));
        }
        if (!opened) {
            double squared = Math.min(logReturn * logReturn, CLIP * CLIP * cells[0]);
            double least = Math.pow(model.volatilityPrior * VOLATILITY_FLOOR, 2);
            cells[0] = Math.max(cells[0] + VOLATILITY_WEIGHT * (squared - cells[0]), least);
        }
        held.price = price;
    }
}
