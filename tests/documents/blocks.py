"""What stands in the documents: fenced blocks, commands in running text, links and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Also inside a list, where it is indented.
_FENCE = re.compile(r"^( *)(```+)(\S*)\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    #: Path in the repository.
    document: str
    #: Where its first fence stands.
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The name in a first line such as `# gold.toml`: the block is that file."""
        found = re.match(r"# ([\w-]+\.\w+)\n", self.text)
        return found[1] if found else None

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, one a line; of a transcript those behind a `$`."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def documents() -> list[Path]:
    """Return every page that is written for people."""
    folders = (ROOT.glob("*.md"), ROOT.glob("docs/**/*.md"), ROOT.glob("deploy/**/*.md"))
    return sorted(page for pages in folders for page in pages)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    text = page.read_text("utf-8")
    return [
        Block(name_of(page), text.count("\n", 0, found.start()) + 1, found[3], re.sub(f"(?m)^{found[1]}", "", found[4]))
        for found in _FENCE.finditer(text)
    ]


def all_blocks() -> list[Block]:
    return [block for page in documents() for block in blocks_of(page)]


def prose_of(page: Path) -> str:
    """Return what stands outside of fenced blocks and comments."""
    return _COMMENT.sub("", _FENCE.sub("", page.read_text("utf-8")))


def inline_code(page: Path) -> Iterator[str]:
    """Yield what stands in backticks, line breaks inside as spaces."""
    for found in re.finditer(r"(?<!`)`([^`]+)`(?!`)", prose_of(page)):
        yield " ".join(found[1].split())


def links(page: Path) -> Iterator[str]:
    """Yield the targets of links and pictures that stay in the repository."""
    for found in re.finditer(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose_of(page))):
        if "://" not in found[1]:
            yield found[1]


def anchors(page: Path) -> set[str]:
    """Return the names by which links reach the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
