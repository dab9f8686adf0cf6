"""tickcast beside other ways to put the same model behind the same Kafka: `python -m bench.peers --help`."""
