"""The pages hold together: tables, drawings, links, names of tests and commands are those of the repository."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from daemon.cli.main import app
from daemon.dev.drawings import pictures
from daemon.dev.tables import TABLES, is_stale, metrics_table
from tests.documents.blocks import ROOT, Block, all_blocks, anchors, documents, inline_code, links, name_of, prose_of
from tests.documents.ways import UNRUN, NoWay, kind_of

PAGES = documents()
TEST_NAME = re.compile(r"^(tests/[\w/]+\.py)(?:::(\w+))?$")


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_code(name: str) -> None:
    assert not is_stale(name), "run: python -m daemon.dev.tables"


@pytest.mark.parametrize(("name", "text"), list(pictures()), ids=lambda value: value[:20])
def test_drawings_are_those_of_the_code(name: str, text: str) -> None:
    assert (ROOT / "docs" / "images" / name).read_text("utf-8") == text, (
        "run: python -m daemon.dev.drawings docs/images"
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: there is no {target}"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading; there are {sorted(anchors(target))}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_has_a_way_to_be_run_or_checked(page: Path) -> None:
    for block in all_blocks():
        if block.document == name_of(page):
            kind_of(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_stand_in_fenced_blocks_where_they_are_run(page: Path) -> None:
    assert re.findall(r"^ {4,}(?:\$ )?(?:tickcast|python -m) .*", prose_of(page), re.MULTILINE) == []


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("sh", "podman run kafka\n", "calls a program that does not run here; register it"),
        ("sh", "tickcast status && rm -r .\n", "more than one command"),
        ("promql", "up == 0\n", "nothing says how to check promql"),
        ("", "text\n", "name a language"),
        ("toml", "unheard = 1\n", "known"),
    ],
)
def test_a_block_that_nobody_registered_fails_and_says_what_to_do(language: str, text: str, said: str) -> None:
    with pytest.raises(NoWay, match=f"new.md:7.*{said}"):
        kind_of(Block("new.md", 7, language, text))


def test_every_exception_is_needed() -> None:
    commands = [command for block in all_blocks() for command in block.commands]
    assert [each for each in UNRUN if not any(command.startswith(each) for command in commands)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_running_text_exist_with_their_options(page: Path) -> None:
    for code in inline_code(page):
        if code.startswith("tickcast "):
            assert known(code), f"{page.name}: `{code}`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_and_modules_that_are_named_exist(page: Path) -> None:
    for code in inline_code(page):
        found = TEST_NAME.match(code)
        if found:
            file = ROOT / found[1]
            assert file.exists(), code
            assert not found[2] or found[2] in functions(file), code
        module = re.match(r"python -m ([\w.]+)", code)
        if module and module[1].split(".")[0] in ("bench", "daemon", "schemas"):
            place = ROOT / module[1].replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_metrics_that_are_named_exist(page: Path) -> None:
    known_names = set(re.findall(r"`(tickcast_\w+)`", "\n".join(metrics_table())))
    named = {found for code in inline_code(page) for found in re.findall(r"^tickcast_\w+", code)}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= known_names


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.exists() or page.suffix != ".md":
            continue
        reached.add(page)
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            waiting += sorted(target.glob("*.md")) if target.is_dir() else [target]
    assert [name_of(page) for page in PAGES if page not in reached] == []


def test_tables_can_be_read() -> None:
    """A row of another number of cells than its head is cut off without a word where pages are shown."""
    for page in PAGES:
        for table in re.findall(r"(?:^\|.*\|\n)+", prose_of(page), re.MULTILINE):
            cells = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in table.splitlines()}
            assert len(cells) == 1, f"{page.name}: {table[:200]}"


def known(code: str) -> bool:
    """Say whether a command exists, with the options that it is named with."""
    command: Any = get_command(app)
    words = shlex.split(code, comments=True)[1:]
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        command = command.commands.get(words.pop(0))
        if command is None:
            return False
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options.add("--help")
    return {word.partition("=")[0] for word in words if word.startswith("-")} <= options


def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}
