"""Writes the table of the doctor's findings into its page, between the markers, from the checks themselves.

python -m daemon.dev.doctor_page docs/doctor.md [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from daemon.doctor import all_checks

BEGIN, END = "<!-- findings -->\n", "<!-- /findings -->"


def main() -> int:
    """Write or check the table of one document."""
    file, *options = sys.argv[1:]
    path = Path(file)
    text = path.read_text("utf-8")
    fresh = filled(text)
    if options == ["--check"]:
        if fresh != text:
            print(f"{path}: not the checks of the code; run python -m daemon.dev.doctor_page {path}", file=sys.stderr)
        return int(fresh != text)
    path.write_text(fresh, "utf-8")
    return 0


def filled(text: str) -> str:
    """Return the document with its table written anew."""
    head, begun, rest = text.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(f"the document has no {BEGIN.strip()} ... {END}")
    return head + BEGIN + "\n" + "\n".join(findings_table()) + "\n\n" + END + tail


def findings_table() -> Iterator[str]:
    """One row per check."""
    yield "| finding | of | what is wrong | measured | found | remedy |"
    yield "|---|---|---|---|---|---|"
    for check in all_checks():
        patients, limit = ", ".join(check.of), check.threshold
        yield f"| `{check.code}` | {patients} | {check.title} | {check.measures} | {limit} | {check.remedy} |"


if __name__ == "__main__":
    raise SystemExit(main())
