/** Scores and intervals, as in daemon/core/scores.py and intervals.py, for outputs that say a plain log return. */
final class Intervals {
    private static final double COVERAGE = 0.9;
    private static final double ALLOWED = (1 - COVERAGE) / 2;
    private static final int STRIDE = 8;
    private static final int PENDING_MAX = 8;
    private static final double STEP = 0.05;
    private static final double HASTE = 16;
    private static final double HASTE_OUTCOMES = 20;
    private static final double WEIGHT = 0.005;
    private static final double OUTLIER_SQUARE = 900;
    private static final double MEAN_SQUARE_MIN = 1e-24;
    private static final double MEMORY_OUTCOMES = 500;
    private static final double DEBT_LIMIT = 25;
    private static final double DEBT_MAX = 24;
    private static final double GAIN = 0.3;

    private Intervals() {}

    /** Scores the forecast whose truth this tick is, if there is one. */
    static void settle(Held held, int column) {
        var waiting = held.pending[column];
        if (waiting.isEmpty() || waiting.peek().due() != held.step) return;
        var forecast = waiting.poll();
        double truth = Math.log(held.price) - Math.log(forecast.price());
        boolean still = held.price == forecast.price();
        learn(held.tracks[column], (truth - forecast.value()) / forecast.unit(), still, truth < forecast.low(),
                truth > forecast.high());
    }

    /** Lets a forecast wait for its truth, where it is the horizon's turn. */
    static void sample(Held held, int column, int horizon, double value, double unit) {
        if ((held.step + horizon) % STRIDE != 0 || held.pending[column].size() >= PENDING_MAX) return;
        double[] track = held.tracks[column];
        held.pending[column].add(new Held.Pending(held.step + horizon, held.price, value, unit,
                value + low(track) * unit, value + high(track) * unit));
    }

    static double low(double[] track) {
        return -(track[0] + track[2] * GAIN / (DEBT_LIMIT - Math.abs(track[2]))) * Math.sqrt(track[4]);
    }

    static double high(double[] track) {
        return (track[1] + track[3] * GAIN / (DEBT_LIMIT - Math.abs(track[3]))) * Math.sqrt(track[4]);
    }

    static boolean holdsPrice(double[] track) {
        return track[5] > COVERAGE;
    }

    private static void learn(double[] track, double error, boolean still, boolean below, boolean above) {
        double count = ++track[6];
        double square = Math.min(error * error, OUTLIER_SQUARE * track[4]);
        boolean young = count < 1 / WEIGHT;
        double weight = young ? 1 / count : WEIGHT;
        double step = young ? STEP + STEP * HASTE / (1 + count / HASTE_OUTCOMES) : STEP;
        track[4] = Math.max(MEAN_SQUARE_MIN, track[4] + weight * (square - track[4]));
        track[5] += weight * ((still ? 1 : 0) - track[5]);
        for (int side = 0; side < 2; side++) {
            double miss = (side == 0 ? below : above) ? 1 - ALLOWED : -ALLOWED;
            track[side] += step * miss;
            track[2 + side] = Math.min(DEBT_MAX, track[2 + side] + miss - track[2 + side] / MEMORY_OUTCOMES);
        }
    }
}
