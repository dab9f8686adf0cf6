"""Machine code from other sources than those beside it is refused, not run."""

import json

import pytest

from daemon import compiled


def test_machine_code_is_refused_once_a_source_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "STAMP", tmp_path / "compiled.json")
    compiled.refuse_stale()  # nothing is compiled
    compiled.STAMP.write_text(json.dumps(compiled.hashes()), "utf-8")
    compiled.refuse_stale()
    compiled.STAMP.write_text(json.dumps(compiled.hashes() | {"intake": "0" * 64}), "utf-8")
    with pytest.raises(ImportError, match="make compile"):
        compiled.refuse_stale()


def test_every_import_of_the_program_looks(monkeypatch):
    import importlib

    import daemon

    looks = []
    monkeypatch.setattr(compiled, "refuse_stale", lambda: looks.append("looked"))
    importlib.reload(daemon)
    assert looks == ["looked"]
