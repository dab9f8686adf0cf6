import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;

/** A tick as it stands in the topic; a number that is missing is NaN. */
final class Tick {
    private static final JsonFactory JSON = new JsonFactory();

    String instrument;
    long ts;
    double price = Double.NaN;
    double size = Double.NaN;
    String aggressor;
    double bid = Double.NaN;
    double ask = Double.NaN;
    double bidSize = Double.NaN;
    double askSize = Double.NaN;

    Tick(byte[] value) throws IOException {
        try (JsonParser in = JSON.createParser(value)) {
            in.nextToken();
            while (in.nextToken() == JsonToken.FIELD_NAME) {
                String name = in.currentName();
                in.nextToken();
                switch (name) {
                    case "instrument" -> instrument = in.getText();
                    case "ts" -> ts = in.getLongValue();
                    case "price" -> price = in.getDoubleValue();
                    case "size" -> size = in.getDoubleValue();
                    case "aggressor" -> aggressor = in.getText();
                    case "bid" -> bid = in.getDoubleValue();
                    case "ask" -> ask = in.getDoubleValue();
                    case "bid_size" -> bidSize = in.getDoubleValue();
                    case "ask_size" -> askSize = in.getDoubleValue();
                    default -> in.skipChildren();
                }
            }
        }
    }
}
