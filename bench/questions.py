"""Probes a model like those that people ask about, and puts what was printed into docs/questions.md.

python -m bench.questions docs/questions.md
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from bench.rig import computer, write_section

#: Seed of the model's weights.
SEED = 1


def write_gold_predictor(file: Path) -> None:
    """Write nested stateful LSTMs with input (1, 10, 5) as TensorFlow 2.14 would have: Keras 2, `.h5`, not trained."""
    keras = import_module("tf_keras")
    layers = keras.layers
    keras.utils.set_random_seed(SEED)
    encoder = keras.Sequential(
        [
            layers.LSTM(64, return_sequences=True, stateful=True, batch_input_shape=(1, 10, 5), name="lstm_1"),
            layers.Dropout(0.2),
            layers.LSTM(32, return_sequences=True, stateful=True, name="lstm_2"),
        ],
        name="encoder",
    )
    stack = [encoder, layers.LSTM(16, stateful=True, name="lstm_3"), layers.Dense(1)]
    model = keras.Sequential(stack, name="gold_predictor")
    model.build((1, 10, 5))
    model.save(file)


def run_probe(file: Path, *options: str) -> str:
    """Run the command beside the file, as a user would, and return what it prints."""
    command = [sys.executable, "-m", "daemon.cli.main", "probe", file.name, *options]
    return subprocess.run(command, cwd=file.parent, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    document = parser.parse_args().document
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gold.h5"
        write_gold_predictor(file)
        printed = run_probe(file)
    measured = computer("tensorflow-cpu", "keras", "tf-keras", "numpy")
    cores = f"{os.cpu_count()} cores at a load of {os.getloadavg()[0]:.0f}"
    note = f"Measured {measured}, {cores}; `python -m bench.questions docs/questions.md` measures it again."
    write_section(document, "probe", f"```console\n$ tickcast probe gold.h5\n{printed}```\n\n{note}\n")


if __name__ == "__main__":
    main()
