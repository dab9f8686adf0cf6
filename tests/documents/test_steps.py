"""Every command and every snippet of the documents runs, page by page, in the order in which a reader meets them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daemon.cli.main import app
from tests.documents.blocks import Block, blocks_of, documents, name_of
from tests.documents.stage import Stage, with_additions
from tests.documents.ways import STEPS, exit_codes, is_unrun, needs_tensorflow


def steps_of(page: Path, *, tensorflow: bool) -> list[tuple[Block, str]]:
    """Return the lines of shell blocks and the whole blocks of Python that are to run, in their order."""
    steps = [
        (block, text)
        for block in blocks_of(page)
        if block.language in STEPS
        for text in ([block.text] if block.language == "python" else block.commands)
    ]
    return [
        (block, text)
        for block, text in steps
        if needs_tensorflow(block, text) is tensorflow and not is_unrun(block, text)
    ]


def pages(*, tensorflow: bool) -> list[Path]:
    return [page for page in documents() if steps_of(page, tensorflow=tensorflow)]


@pytest.fixture
def stage(page: Path, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, blocks_of(page))
    yield made
    made.close()


@pytest.mark.kafka
@pytest.mark.parametrize("page", pages(tensorflow=False), ids=name_of)
def test_what_a_reader_does(page: Path, stage: Stage) -> None:
    for block, text in steps_of(page, tensorflow=False):
        if block.language == "python":
            stage.python(block)
        else:
            stage.run(text)


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.parametrize("page", pages(tensorflow=True), ids=name_of)
def test_what_a_reader_does_with_tensorflow(page: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, which waits for TensorFlow once."""
    monkeypatch.chdir(stage.folder)
    for block, text in steps_of(page, tensorflow=True):
        if block.language == "python":
            stage.write_files()
            for name in ("gold.h5", "bars.csv"):
                stage.make_file(name)
            exec(compile(block.text, str(block), "exec"), {})
            continue
        stage.prepare(text)
        for name, value in stage.environment().items():
            if name.startswith("TICKCAST_"):
                monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, with_additions(text).split()[1:])
        assert result.exit_code in exit_codes(text), f"{block}: {text}\n{result.output}\n{result.exception!r}"
