import java.io.IOException;
import java.nio.file.Path;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.Stores;

/**
 * The model in Kafka Streams: one processor with a key-value store, one thread.
 *
 * <p>The store is cached: of an instrument's writes between two commits one goes to RocksDB and the changelog. In memory
 * instead it is no faster, and a process without a persistent store takes a new transactional id at every start, so that
 * it has to wait until the transaction of a killed one times out, 10 s.
 */
final class Main {
    private Main() {}

    /** Arguments: bootstrap servers, topic of ticks, topic of forecasts, id, model file, folder, guarantee, commit ms. */
    public static void main(String[] args) throws IOException {
        Model model = new Model(Path.of(args[4]));
        var settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[3]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[5]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, args[6]);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args[7]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        // Without it a killed process would be waited for until its session ends, 45 s.
        settings.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG), args[3]);
        // Streams' own 100 ms would be what at-least-once latency measures; a commit flushes under either guarantee.
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 5);

        var topology = new Topology();
        topology.addSource("ticks", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), args[1]);
        topology.addProcessor("forecast", () -> new Forecasting(model), "ticks");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(
                                Stores.persistentKeyValueStore(Forecasting.STORE), Serdes.String(), Serdes.ByteArray())
                        .withCachingEnabled(),
                "forecast");
        topology.addSink("forecasts", args[2], Serdes.String().serializer(), Serdes.ByteArray().serializer(),
                "forecast");

        var streams = new KafkaStreams(topology, settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
