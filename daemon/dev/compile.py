"""Compile the hot modules of the core, in place: `python -m daemon.dev.compile`, `--remove` to take it back.

mypyc makes C of typed Python. It needs a C compiler; nothing else here does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from daemon import compiled

ROOT = Path(compiled.__file__).parents[1]
#: a * b + c is two roundings in Python; on processors where one instruction does both, C would make it one.
SAME_BITS = "-ffp-contract=off"


def remove() -> None:
    """Take the machine code away: the sources run again."""
    for path in compiled.files():
        path.unlink()


def compile_core(root: Path = ROOT) -> None:
    """Compile beside the sources.

    Raises
    ------
    SystemExit : there is no C compiler, or it failed
    """
    from mypyc.build import mypycify
    from setuptools import Distribution

    if shutil.which(os.environ.get("CC", "cc")) is None:
        sys.exit("no C compiler was found; install one (Debian: apt-get install gcc), or go on without: it is optional")
    remove()
    os.chdir(root)
    os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} {SAME_BITS}"
    paths = [f"daemon/core/{module}.py" for module in compiled.MODULES]
    with tempfile.TemporaryDirectory() as folder:
        extensions = mypycify(
            ["--config-file=", "--ignore-missing-imports", *paths], target_dir=folder, group_name="tickcast"
        )
        build = Distribution({"name": "tickcast", "ext_modules": extensions}).get_command_obj("build_ext")
        build.inplace, build.build_temp, build.parallel = True, folder, os.cpu_count()
        build.ensure_finalized()
        build.run()
    compiled.STAMP.write_text(json.dumps(compiled.sources()), "utf-8")


def main() -> None:
    """Compile, or remove what was compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--remove", action="store_true", help="take the machine code away")
    options = parser.parse_args()
    if options.remove:
        remove()
    else:
        compile_core()


if __name__ == "__main__":
    main()
