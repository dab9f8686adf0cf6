import java.nio.ByteBuffer;
import java.util.ArrayDeque;

/** All that is kept of one instrument, and the same as bytes for the store. */
final class Held {
    /** A forecast that waits for its truth. */
    record Pending(int due, double price, double value, double unit, double low, double high) {}

    final float[] state;
    /** Running variance of returns; mean and variance of every column; the six moving averages. */
    final double[] cells;
    final double[][] tracks;
    final ArrayDeque<Pending>[] pending;
    double bid = Double.NaN;
    double ask = Double.NaN;
    double bidSize = Double.NaN;
    double askSize = Double.NaN;
    double price = Double.NaN;
    long lastTs = Long.MIN_VALUE;
    long sessionSince;
    int step;

    @SuppressWarnings("unchecked")
    Held(Model model) {
        state = new float[model.stateSize];
        cells = new double[1 + 2 * model.columns + Features.AVERAGES];
        cells[0] = model.volatilityPrior * model.volatilityPrior;
        for (int i = 0; i < model.columns; i++) {
            cells[1 + 2 * i] = model.columnMean[i];
            cells[2 + 2 * i] = model.columnStd[i] * model.columnStd[i];
        }
        tracks = new double[model.outputs][];
        pending = new ArrayDeque[model.outputs];
        for (int i = 0; i < model.outputs; i++) {
            tracks[i] = model.tracks[i].clone();
            pending[i] = new ArrayDeque<>();
        }
    }

    Held(Model model, byte[] packed) {
        this(model);
        ByteBuffer in = ByteBuffer.wrap(packed);
        in.asFloatBuffer().get(state);
        in.position(4 * state.length);
        in.asDoubleBuffer().get(cells);
        in.position(in.position() + 8 * cells.length);
        bid = in.getDouble();
        ask = in.getDouble();
        bidSize = in.getDouble();
        askSize = in.getDouble();
        price = in.getDouble();
        lastTs = in.getLong();
        sessionSince = in.getLong();
        step = in.getInt();
        for (int i = 0; i < tracks.length; i++) {
            for (int k = 0; k < 7; k++) tracks[i][k] = in.getDouble();
            for (int count = in.getInt(); count > 0; count--) {
                pending[i].add(new Pending(in.getInt(), in.getDouble(), in.getDouble(), in.getDouble(),
                        in.getDouble(), in.getDouble()));
            }
        }
    }

    byte[] pack() {
        int size = 4 * state.length + 8 * cells.length + 60;
        for (ArrayDeque<Pending> waiting : pending) size += 60 + 44 * waiting.size();
        ByteBuffer out = ByteBuffer.allocate(size);
        out.asFloatBuffer().put(state);
        out.position(4 * state.length);
        out.asDoubleBuffer().put(cells);
        out.position(out.position() + 8 * cells.length);
        out.putDouble(bid).putDouble(ask).putDouble(bidSize).putDouble(askSize).putDouble(price);
        out.putLong(lastTs).putLong(sessionSince).putInt(step);
        for (int i = 0; i < tracks.length; i++) {
            for (double number : tracks[i]) out.putDouble(number);
            out.putInt(pending[i].size());
            for (Pending each : pending[i]) {
                out.putInt(each.due).putDouble(each.price).putDouble(each.value).putDouble(each.unit);
                out.putDouble(each.low).putDouble(each.high);
            }
        }
        return out.array();
    }
}
