"""The program as users start it, for tests of its commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon.dev.child import to_toml


class Tool:
    """`tickcast` with a settings file of its own."""

    def __init__(self, file: Path, settings: Mapping[str, Any]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(to_toml(settings), "utf-8")
        self._file = file

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "daemon.cli.main", *arguments, "--config", str(self._file)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
        )

    def text(self, *arguments: str) -> str:
        """Run, expect success, and return what it printed."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "--json"))

    def json_with_notes(self, *arguments: str) -> Any:
        """Run, expect success, and return the JSON, whatever was said beside it."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def refusal(self, *arguments: str, code: int) -> str:
        """Run, expect this exit code, and return its one line."""
        done = self.run(*arguments)
        assert done.returncode == code, done
        (line,) = done.stderr.splitlines()
        return line
