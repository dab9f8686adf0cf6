"""Compiles the hot modules of the core, beside their sources: `python -m daemon.dev.compile`; `make compile` calls it.

mypyc makes C of typed Python. It needs a C compiler, as nothing else here does.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from mypyc.build import mypycify
from setuptools import Distribution

from daemon import compiled

ROOT = Path(compiled.__file__).parents[1]
#: ``a * b + c`` rounds twice in Python; where a processor has one instruction for both, C would round once.
SAME_BITS = "-ffp-contract=off"


def main() -> None:
    """Compile."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        sys.exit("no C compiler was found: install one (Debian: apt-get install gcc), or go on without machine code")
    os.chdir(ROOT)
    os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} {SAME_BITS}"
    sources = [f"daemon/core/{module}.py" for module in compiled.MODULES]
    with tempfile.TemporaryDirectory() as folder:
        extensions = mypycify(
            ["--config-file=", "--ignore-missing-imports", *sources], target_dir=folder, group_name="tickcast"
        )
        build = Distribution({"name": "tickcast", "ext_modules": extensions}).get_command_obj("build_ext")
        build.inplace, build.build_temp, build.build_lib = True, folder, folder
        build.ensure_finalized()
        build.run()
    compiled.STAMP.write_text(json.dumps(compiled.hashes()), "utf-8")


if __name__ == "__main__":
    main()
