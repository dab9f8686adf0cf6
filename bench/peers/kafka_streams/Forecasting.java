import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Instant;
import java.util.Arrays;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** A tick in, its forecast out; what is kept of its instrument goes through the store. */
final class Forecasting implements Processor<String, byte[], String, byte[]> {
    static final String STORE = "held";

    private static final JsonFactory JSON = new JsonFactory();
    private static final long GAP_NS = 3_600_000_000_000L;
    private static final int WARMUP_TICKS = 50;
    private static final int PRICE_DIGITS = 10;
    private static final int VARIANCE_DIGITS = 4;

    private final Model model;
    private final float[] x;
    private final double[] y;
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, byte[]> store;

    Forecasting(Model model) {
        this.model = model;
        x = new float[model.columns];
        y = new double[model.outputs];
    }

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
        this.context = context;
        store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, byte[]> record) {
        try {
            byte[] packed = store.get(record.key());
            Held held = packed == null ? new Held(model) : new Held(model, packed);
            byte[] payload = forecast(new Tick(record.value()), held);
            store.put(record.key(), held.pack());
            context.forward(record.withValue(payload));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private byte[] forecast(Tick tick, Held held) throws IOException {
        boolean first = held.lastTs == Long.MIN_VALUE;
        boolean opened = first || tick.ts - held.lastTs > GAP_NS;
        Features.update(model, tick, held, opened, x);
        if (opened) {
            Arrays.fill(held.state, 0);
            for (var waiting : held.pending) waiting.clear();
            held.step = 0;
            held.sessionSince = tick.ts;
        }
        held.lastTs = Math.max(held.lastTs, tick.ts);
        model.step(x, held.state, y);

        int n = model.outputs;
        double[] mean = new double[n];
        double[] lower = new double[n];
        double[] upper = new double[n];
        double[] variance = new double[n];
        double volatility = Math.sqrt(held.cells[0]);
        for (int i = 0; i < n; i++) {
            Intervals.settle(held, i);
            double unit = model.outputScale[i] * (model.volatile_[i] ? volatility : 1);
            double value = model.outputMean[i] + unit * y[i];
            unit = Math.abs(unit);
            Intervals.sample(held, i, model.horizons[i], value, unit);
            double[] track = held.tracks[i];
            mean[i] = priceAt(value, held.price);
            double also = Intervals.holdsPrice(track) ? held.price : mean[i];
            lower[i] = Math.min(Math.min(priceAt(value + Intervals.low(track) * unit, held.price), mean[i]), also);
            upper[i] = Math.max(Math.max(priceAt(value + Intervals.high(track) * unit, held.price), mean[i]), also);
            variance[i] = rounded(unit * unit * track[4], unit * unit * track[4], VARIANCE_DIGITS);
        }
        byte[] payload = write(tick, held, opened ? first ? "first" : "session" : null, mean, lower, upper, variance);
        held.step++;
        return payload;
    }

    private byte[] write(Tick tick, Held held, String reset, double[] mean, double[] lower, double[] upper,
            double[] variance) throws IOException {
        var at = context.recordMetadata().orElseThrow();
        var bytes = new ByteArrayOutputStream(640);
        try (JsonGenerator out = JSON.createGenerator(bytes)) {
            out.writeStartObject();
            out.writeStringField("id", at.topic() + "-" + at.partition() + "-" + at.offset());
            out.writeStringField("instrument", tick.instrument);
            out.writeNumberField("ts", tick.ts);
            out.writeStringField("session", Instant.ofEpochSecond(held.sessionSince / 1_000_000_000L).toString());
            out.writeNumberField("step", held.step);
            out.writeStringField("reset", reset);
            out.writeBooleanField("warm", held.step >= WARMUP_TICKS);
            out.writeNumberField("price", held.price);
            out.writeFieldName("horizons");
            out.writeArray(model.horizons, 0, model.outputs);
            writeArray(out, "mean", mean);
            writeArray(out, "lower", lower);
            writeArray(out, "upper", upper);
            writeArray(out, "variance", variance);
            out.writeStringField("model", model.id);
            out.writeNumberField("schema_version", 1);
            out.writeEndObject();
        }
        return bytes.toByteArray();
    }

    private static void writeArray(JsonGenerator out, String name, double[] values) throws IOException {
        out.writeFieldName(name);
        out.writeArray(values, 0, values.length);
    }

    private static double priceAt(double value, double price) {
        return rounded(price * Math.exp(value), price, PRICE_DIGITS);
    }

    /** Rounds a value to the decimals that keep so many digits of `like`. */
    private static double rounded(double value, double like, int digits) {
        double power = POWERS[300 + digits - (int) Math.floor((Math.getExponent(like) + 1) * 0.30102999566398120)];
        return Math.rint(value * power) / power;
    }

    private static final double[] POWERS = new double[601];

    static {
        for (int i = 0; i < POWERS.length; i++) POWERS[i] = Double.parseDouble("1e" + (i - 300));
    }
}
