"""docs/questions.md: what it shows of the probe is what the probe says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.questions import run_probe, write_gold_predictor

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"
#: Figures of time and memory, and what only luck decides, differ from run to run.
CHANGING = re.compile(r"^(\(b0\)|From \(a\)|\(b\) does).*$|\d+(\.\d+)?(e-\d+)?|[ -]+", re.MULTILINE)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_the_sample_is_what_the_command_prints(tmp_path):
    shown = re.search(r"\$ tickcast probe gold.h5\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    write_gold_predictor(tmp_path / "gold.h5")
    printed = run_probe(tmp_path / "gold.h5", "--repeats", "5")
    assert without_figures(printed) == without_figures(shown[1])
    verdicts = [line for line in printed.splitlines() if line.startswith(("(a)", "(b) ", "(c)"))][:3]
    assert ["no leak" in line for line in verdicts] == [False, True, True]


def without_figures(text):
    return CHANGING.sub("", text)
