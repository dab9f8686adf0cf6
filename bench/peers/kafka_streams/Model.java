import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * The bundle (see export.py), and its network: stacked LSTMs with a dense head on plain arrays.
 *
 * <p>Weights and states are floats. Sums are doubles, for speed: between two arrays of floats the compiler cannot rule out
 * that a store changes what the next load reads, and makes no vectors of the loop. So it is five times as fast.
 */
final class Model {
    final String id;
    final int columns;
    final int outputs;
    final double volatilityPrior;
    final double[] columnMean;
    final double[] columnStd;
    final int[] horizons;
    final double[] outputMean;
    final double[] outputScale;
    final boolean[] volatile_;
    /** Start of every output's interval track: low, high, low debt, high debt, mean square, still, count. */
    final double[][] tracks;
    /** Floats of h and c over all layers. */
    final int stateSize;

    private final int[] units;
    private final float[][] weights;
    private final float[][] bias;
    private final float[] headWeights;
    private final float[] headBias;
    private final double[][] gates;

    Model(Path file) throws IOException {
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(Files.newInputStream(file)))) {
            id = in.readUTF();
            int layers = in.readInt();
            columns = in.readInt();
            outputs = in.readInt();
            volatilityPrior = in.readDouble();
            columnMean = new double[columns];
            columnStd = new double[columns];
            for (int i = 0; i < columns; i++) {
                columnMean[i] = in.readDouble();
                columnStd[i] = in.readDouble();
            }
            horizons = new int[outputs];
            outputMean = new double[outputs];
            outputScale = new double[outputs];
            volatile_ = new boolean[outputs];
            tracks = new double[outputs][7];
            for (int i = 0; i < outputs; i++) {
                horizons[i] = in.readInt();
                outputMean[i] = in.readDouble();
                outputScale[i] = in.readDouble();
                volatile_[i] = in.readBoolean();
                for (int k = 0; k < 7; k++) tracks[i][k] = in.readDouble();
            }
            units = new int[layers];
            weights = new float[layers][];
            bias = new float[layers][];
            gates = new double[layers][];
            int inputs = columns;
            int size = 0;
            for (int layer = 0; layer < layers; layer++) {
                units[layer] = in.readInt();
                weights[layer] = floats(in, (inputs + units[layer]) * 4 * units[layer]);
                bias[layer] = floats(in, 4 * units[layer]);
                gates[layer] = new double[4 * units[layer]];
                inputs = units[layer];
                size += 2 * units[layer];
            }
            stateSize = size;
            headWeights = floats(in, inputs * outputs);
            headBias = floats(in, outputs);
        }
    }

    /** Advances `state` in place by one row; writes the outputs to `y`. */
    void step(float[] x, float[] state, double[] y) {
        float[] below = x;
        int belowAt = 0;
        int belowCount = columns;
        int at = 0;
        for (int layer = 0; layer < units.length; layer++) {
            int n = units[layer];
            double[] z = gates[layer];
            for (int k = 0; k < z.length; k++) z[k] = bias[layer][k];
            addProduct(below, belowAt, belowCount, weights[layer], 0, z);
            addProduct(state, at, n, weights[layer], belowCount * 4 * n, z);
            for (int i = 0; i < n; i++) {
                double c = sigmoid(z[n + i]) * state[at + n + i] + sigmoid(z[i]) * tanh(z[3 * n + i]);
                state[at + n + i] = (float) c;
                state[at + i] = (float) (sigmoid(z[2 * n + i]) * tanh(c));
            }
            below = state;
            belowAt = at;
            belowCount = n;
            at += 2 * n;
        }
        for (int k = 0; k < outputs; k++) y[k] = headBias[k];
        addProduct(below, belowAt, belowCount, headWeights, 0, y);
    }

    /** Rows of the weights, four at a time: the inner loop runs over neighbours, and few sums are stored in between. */
    private static void addProduct(float[] x, int xAt, int count, float[] w, int wAt, double[] z) {
        int width = z.length;
        int i = 0;
        for (; i + 4 <= count; i += 4) {
            double a = x[xAt + i];
            double b = x[xAt + i + 1];
            double c = x[xAt + i + 2];
            double d = x[xAt + i + 3];
            int row = wAt + i * width;
            for (int k = 0; k < width; k++) {
                z[k] += a * w[row + k] + b * w[row + width + k] + c * w[row + 2 * width + k] + d * w[row + 3 * width + k];
            }
        }
        for (; i < count; i++) {
            double a = x[xAt + i];
            int row = wAt + i * width;
            for (int k = 0; k < width; k++) z[k] += a * w[row + k];
        }
    }

    private static double sigmoid(double value) {
        return 1 / (1 + Math.exp(-value));
    }

    private static double tanh(double value) {
        return 1 - 2 / (1 + Math.exp(2 * value));
    }

    private static float[] floats(DataInputStream in, int count) throws IOException {
        float[] found = new float[count];
        for (int i = 0; i < count; i++) found[i] = in.readFloat();
        return found;
    }
}
