import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** The bundle (see export.py), and its network: stacked LSTMs with a dense head on plain float arrays. */
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
    private final float[][] gates;

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
            gates = new float[layers][];
            int inputs = columns;
            int size = 0;
            for (int layer = 0; layer < layers; layer++) {
                units[layer] = in.readInt();
                weights[layer] = floats(in, (inputs + units[layer]) * 4 * units[layer]);
                bias[layer] = floats(in, 4 * units[layer]);
                gates[layer] = new float[4 * units[layer]];
                inputs = units[layer];
                size += 2 * units[layer];
            }
            stateSize = size;
            headWeights = floats(in, inputs * outputs);
            headBias = floats(in, outputs);
        }
    }

    /** Advances `state` in place by one row; writes the outputs to `y`. */
    void step(float[] x, float[] state, float[] y) {
        float[] below = x;
        int belowAt = 0;
        int belowCount = columns;
        int at = 0;
        for (int layer = 0; layer < units.length; layer++) {
            int n = units[layer];
            float[] z = gates[layer];
            System.arraycopy(bias[layer], 0, z, 0, 4 * n);
            addProduct(below, belowAt, belowCount, weights[layer], 0, z);
            addProduct(state, at, n, weights[layer], belowCount * 4 * n, z);
            for (int i = 0; i < n; i++) {
                float c = sigmoid(z[n + i]) * state[at + n + i] + sigmoid(z[i]) * tanh(z[3 * n + i]);
                state[at + n + i] = c;
                state[at + i] = sigmoid(z[2 * n + i]) * tanh(c);
            }
            below = state;
            belowAt = at;
            belowCount = n;
            at += 2 * n;
        }
        System.arraycopy(headBias, 0, y, 0, outputs);
        addProduct(below, belowAt, belowCount, headWeights, 0, y);
    }

    /** Row by row of the weights, so that the inner loop runs over neighbours and the compiler makes it a vector's. */
    private static void addProduct(float[] x, int xAt, int count, float[] w, int wAt, float[] z) {
        int width = z.length;
        for (int i = 0; i < count; i++) {
            float value = x[xAt + i];
            int row = wAt + i * width;
            for (int k = 0; k < width; k++) z[k] += value * w[row + k];
        }
    }

    private static float sigmoid(float value) {
        return (float) (1 / (1 + Math.exp(-value)));
    }

    private static float tanh(float value) {
        return (float) (1 - 2 / (1 + Math.exp(2 * (double) value)));
    }

    private static float[] floats(DataInputStream in, int count) throws IOException {
        float[] found = new float[count];
        for (int i = 0; i < count; i++) found[i] = in.readFloat();
        return found;
    }
}
