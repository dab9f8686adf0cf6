"""Imports point one way, heavy and foreign packages stay where they belong. Reads the sources; runs nothing."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import daemon

ROOT = Path(__file__).parents[2]

#: From the bottom to the top; a module may import its own layer and those below it. The longest prefix counts.
LAYERS: dict[str, int] = {
    "schemas": 0,
    "daemon.core": 1,
    # Leaves beside the core: they know none of our parts but messages and core.
    "daemon.errors": 2,
    "daemon.config": 3,
    "daemon.logs": 3,
    # Parts that do not know each other: see SIBLINGS.
    "daemon.model": 4,
    "daemon.transport": 4,
    "daemon": 5,  # the service and what it is made of
    "daemon.judging": 6,
    "daemon.training": 6,
    "daemon.doctor": 6,
    "daemon.tools": 6,
    "daemon.web": 6,
    "daemon.dev": 6,
    "daemon.cli": 7,
}
SIBLINGS = {("daemon.model", "daemon.transport"), ("daemon.transport", "daemon.model")}

#: The whole of what the core may see beside itself; numpy brings the arrays, the rest is the standard library.
CORE_PACKAGES = {"numpy", "schemas"}
TENSORFLOW_PACKAGES = {"tensorflow", "keras"}


@dataclass(frozen=True)
class Import:
    """One import statement of one module."""

    module: str
    target: str
    line: int
    #: Runs when the module is imported: neither inside a function nor for type checkers only.
    at_import: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


@cache
def modules() -> dict[str, Path]:
    """Return all modules of both packages by name."""
    files = [file for package in ("daemon", "schemas") for file in (ROOT / package).rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(_walk(module, ast.parse(modules()[module].read_text("utf-8")), at_import=True))


def _walk(module: str, node: ast.AST, *, at_import: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield Import(module, name.name, child.lineno, at_import)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}:{child.lineno}: imports are absolute here"
            for name in child.names:
                whole = f"{child.module}.{name.name}"
                yield Import(module, whole if whole in modules() else str(child.module), child.lineno, at_import)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for statement in child.body:
                yield from _walk(module, ast.Module([statement], []), at_import=False)
            for statement in child.orelse:
                yield from _walk(module, ast.Module([statement], []), at_import=at_import)
        else:
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(module, child, at_import=at_import and not lazy)


def all_imports() -> list[Import]:
    return [each for module in modules() for each in imports_of(module)]


def layer(module: str) -> str:
    return max((prefix for prefix in LAYERS if is_within(module, prefix)), key=len)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def points_up(each: Import) -> bool:
    here, there = layer(each.module), layer(each.target)
    # The root package is one line, the version; everybody may know it.
    return each.target != "daemon" and (LAYERS[there] > LAYERS[here] or (here, there) in SIBLINGS)


def package_of(each: Import) -> str:
    return each.target.partition(".")[0]


def loaded_with(module: str) -> dict[str, str]:
    """Return every module of ours that importing `module` runs -> the one that pulled it in."""
    pulled, waiting = {module: ""}, [module]
    while waiting:
        here = waiting.pop()
        parents = [here.rsplit(".", depth)[0] for depth in range(1, here.count(".") + 1)]
        for name in [*(each.target for each in imports_of(here) if each.at_import), *parents]:
            if name in modules() and name not in pulled:
                pulled[name] = here
                waiting.append(name)
    return pulled


def test_imports_point_down():
    assert [str(each) for each in all_imports() if package_of(each) in ("daemon", "schemas") and points_up(each)] == []


@pytest.mark.parametrize(
    ("module", "target", "forbidden"),
    [
        ("daemon.core.pipeline", "daemon.errors", True),
        ("daemon.core.pipeline", "schemas.tick", False),
        ("schemas.tick", "daemon.core.records", True),
        ("daemon.transport.kafka_sink", "daemon.model.bundle", True),
        ("daemon.model.bundle", "daemon.transport.port", True),
        ("daemon.model.bundle", "daemon.core.spec", False),
        ("daemon.transport.memory", "daemon.service", True),
        ("daemon.service", "daemon.transport.port", False),
        ("daemon.service", "daemon.cli.run", True),
        ("daemon.service", "daemon.training.fit", True),
        ("daemon.cli.run", "daemon.service", False),
        ("daemon.config", "daemon.core.features", False),
        ("daemon.errors", "daemon.config", True),
    ],
)
def test_the_rule_itself_tells_down_from_up(module: str, target: str, forbidden: bool):
    assert points_up(Import(module, target, 1, True)) is forbidden


def test_the_core_sees_only_the_standard_library_numpy_and_schemas():
    allowed = CORE_PACKAGES | set(sys.stdlib_module_names)
    foreign = [
        str(each)
        for each in all_imports()
        if is_within(each.module, "daemon.core")
        and not is_within(each.target, "daemon.core")
        and package_of(each) not in allowed
    ]
    assert foreign == []


@pytest.mark.parametrize("entry", ["daemon.cli.main", "daemon.cli.run", "daemon.service", "daemon.assembly"])
def test_serving_imports_no_tensorflow(entry: str):
    heavy = [
        str(each)
        for module in loaded_with(entry)
        for each in imports_of(module)
        if each.at_import and package_of(each) in TENSORFLOW_PACKAGES
    ]
    assert heavy == []


def test_a_process_that_serves_holds_no_tensorflow_and_no_pandas():
    """What our sources do not show: a package of others that brings them in."""
    program = (
        "import sys, daemon.assembly, daemon.service, daemon.transport.kafka_source, daemon.transport.kafka_sink;"
        "print(sorted({'tensorflow', 'keras', 'pandas', 'jax', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_program_starts_without_numpy_kafka_and_pydantic():
    slow = {"numpy", "kafka", "pydantic", "pydantic_settings", "rich", "pandas", "exchange_calendars", "uvicorn"}
    found = [
        str(each)
        for module in loaded_with("daemon.cli.main")
        for each in imports_of(module)
        if each.at_import and package_of(each) in slow
    ]
    assert found == []


def test_kafka_is_known_to_the_transport_and_the_development_tools_only():
    homes = ("daemon.transport", "daemon.dev")
    strangers = [
        str(each)
        for each in all_imports()
        if package_of(each) == "kafka" and not any(is_within(each.module, home) for home in homes)
    ]
    assert strangers == []


def test_the_web_is_known_to_the_page_only():
    strangers = [
        str(each)
        for each in all_imports()
        if package_of(each) in ("starlette", "uvicorn") and not is_within(each.module, "daemon.web")
    ]
    assert strangers == []


def test_the_environment_is_read_in_one_place():
    readers = {module for module, file in modules().items() if reads_environment(file.read_text("utf-8"))}
    # The demo looks for settings in the environment in order to take them out; a notebook is given ours and a path, a C
    # compiler its flags.
    assert readers - {"daemon.dev.demo.stage", "daemon.dev.notebook", "daemon.dev.compile"} == {"daemon.config"}


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("x = os.environ['A']", True),
        ("x = os.environ.get('A')", True),
        ("x = os.getenv('A')", True),
        ("for name in os.environ: pass", True),
        ("os.environ['OPENBLAS_NUM_THREADS'] = '1'", False),
        ("os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')", False),
    ],
)
def test_setting_a_switch_of_a_library_is_no_reading(line: str, reads: bool):
    assert reads_environment(line) is reads


def reads_environment(source: str) -> bool:
    nodes = list(ast.walk(ast.parse(source)))
    written = {
        node.value
        for node in nodes
        if (isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.Attribute) and node.attr == "setdefault")
    }
    named = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")]
    return any(node not in written for node in named)


def test_the_package_daemon_is_ours_and_not_that_of_python_daemon():
    assert daemon.__file__ is not None
    assert Path(daemon.__file__).parent == ROOT / "daemon"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution("python-daemon")
