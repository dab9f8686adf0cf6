"""`tickcast convert`: somebody's Keras model into a bundle."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from daemon.model.compare import Comparison
    from daemon.model.conversion import Conversion


def convert(
    model: Annotated[Path, typer.Argument(help="Model file: .keras or .h5, also of Keras 2.")],
    spec: Annotated[Path | None, typer.Option(help="What its columns and outputs mean: a TOML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle to write.")] = None,
    init: Annotated[
        bool, typer.Option("--init", help="Write a commented spec to fill in, to --spec or standard output.")
    ] = False,
    mode: Annotated[
        Literal["carried", "window"] | None,
        typer.Option(help="How the model is run; default: the spec, then its shape."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Tick file; prints how far the two modes differ on its ticks."),
    ] = None,
    stateless: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the model without kept states, as a .keras file.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what stands at --out, --stateless or --spec.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert a Keras model into a bundle, proven on 1,000 windows or steps against the model itself.

    Mode carried moves each instrument's state on by one step a tick; mode window runs the model over the last ticks,
    and costs as many times more as the window has ticks.

    Example: tickcast convert gold.h5 --init --spec gold.toml, then tickcast convert gold.h5 --spec gold.toml --out gold
    """
    from daemon.errors import SettingsError

    if init:
        _write_template(model, spec, mode, force=force)
        return
    if spec is None and out is None and stateless is not None:
        _check_free(stateless, force=force)
        with _stateless(model, stateless) as difference:
            pass
        _print_stateless(stateless, difference, as_json=as_json)
        return
    if spec is None or out is None:
        raise SettingsError(
            f"convert needs --spec and --out; `tickcast convert {model} --init --spec spec.toml` writes a spec"
        )
    for path in (out, stateless):
        _check_free(path, force=force)
    _convert(model, spec, out, mode, data or [], stateless, force=force, as_json=as_json)


def _convert(
    model: Path,
    spec: Path,
    out: Path,
    mode: Literal["carried", "window"] | None,
    data: list[Path],
    stateless: Path | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    from daemon.model.spec_file import read_spec

    read = read_spec(spec)  # its mistakes are said before TensorFlow is loaded
    from daemon.model.conversion import prepare

    conversion = prepare(model, spec, mode=mode)
    comparison = _compare(conversion, read.steps, data) if data else None
    with _stateless(model, stateless) as difference:
        bundle = conversion.write(out, replace=force)
    if as_json:
        typer.echo(json.dumps(_as_json(conversion, comparison, out, bundle.id, stateless, difference)))
        return
    _print_conversion(conversion)
    if comparison is not None:
        _print_comparison(comparison)
    typer.echo(conversion.proof)
    typer.echo(f"wrote {out}, bundle {bundle.id}")
    if stateless is not None:
        _print_stateless(stateless, difference, as_json=False)


# --- parts ------------------------------------------------------------------------------------------------------------


def _check_free(path: Path | None, *, force: bool) -> None:
    from daemon.errors import SettingsError

    if path is None:
        return
    if path.exists() and not force:
        raise SettingsError(f"{path} exists; choose another path, or replace it with --force")
    if not path.absolute().parent.is_dir():
        raise SettingsError(f"{path}: its parent folder does not exist; create it first")


def _write_template(model: Path, spec: Path | None, mode: Literal["carried", "window"] | None, *, force: bool) -> None:
    from daemon.model.conversion import look_at
    from daemon.model.facts import decide_mode
    from daemon.model.template import template

    _check_free(spec, force=force)
    _, _, facts = look_at(model)
    text = template(facts, decide_mode(facts, mode), str(model))
    if spec is None:
        typer.echo(text, nl=False)
        return
    spec.write_text(text, "utf-8")
    typer.echo(f"wrote {spec}; fill in its features, scaler and outputs")


@contextmanager
def _stateless(model: Path, out: Path | None) -> Iterator[float | None]:
    """Write the stateless model beside `out` and give its difference; it takes its place where the block ends well."""
    from daemon.errors import BundleError

    if out is None:
        yield None
        return
    try:
        from daemon.model.stateless import write_stateless
    except ImportError as error:
        raise BundleError(
            "writing the stateless model needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`"
        ) from error
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as folder:
        draft = Path(folder) / out.name
        yield float(write_stateless(model, draft))
        draft.replace(out)


def _print_stateless(stateless: Path, difference: float | None, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"stateless": {"file": str(stateless), "difference": difference}}))
    else:
        typer.echo(f"wrote {stateless}, largest difference over 100 windows {difference:.1e}")


def _compare(conversion: Conversion, steps: int | None, files: list[Path]) -> Comparison:
    from daemon.boundaries import resolve_rules
    from daemon.errors import SettingsError
    from daemon.model.compare import compare
    from daemon.tick_files import read_ticks

    if conversion.manifest.mode == "window":
        steps = conversion.manifest.steps
    steps = steps or conversion.facts.steps
    if steps is None:
        raise SettingsError("--data compares with mode window, whose length nobody said; add steps = N to the spec")
    ways = conversion.ways(steps)
    return compare(ways, read_ticks(files, in_order=True), resolve_rules(()), steps)


# --- what is shown ----------------------------------------------------------------------------------------------------


def _print_conversion(conversion: Conversion) -> None:
    facts, manifest = conversion.facts, conversion.manifest
    columns, outputs = _count(facts.n_features, "column"), _count(facts.n_outputs, "output")
    typer.echo(f"model {facts.name}: {columns}, {outputs}, {conversion.engine}")
    typer.echo(conversion.sentence)
    width = max(len(column.feature) for column in manifest.columns)
    for index, column in enumerate(manifest.columns):
        sign = "-" if column.mean > 0 else "+"
        shifted = f"(x {sign} {abs(column.mean):.6g})" if column.mean else "x"
        scale = shifted if column.std == 1 else f"{shifted} / {column.std:.6g}"
        running = " at first, then its running scale" if column.scale == "running" else ""
        typer.echo(f"  column {index}  {column.feature:{width}}  {scale}{running}")
    for index, output in enumerate(manifest.outputs):
        ahead = _count(output.horizon, "tick")
        mean = f"{output.mean:.6g} + " if output.mean else ""
        meaning = f"{output.kind} in {ahead} = {mean}{output.scale:.6g} y"
        other = "" if output.of == "mean" else f", its {output.of}"
        hidden = "" if index in manifest.published else ", not published"
        typer.echo(f"  output {index}  {meaning}{other}{hidden}")
    if manifest.future:
        pairs = zip(manifest.columns, manifest.future, strict=True)
        ahead = ", ".join(f"{column.feature} <- {future}" for column, future in pairs)
        typer.echo(f"  rolled out to {', '.join(map(str, manifest.horizons))} ticks: {ahead}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _print_comparison(found: Comparison) -> None:
    typer.echo(
        f"modes on {found.ticks:,} ticks of {found.instruments} instruments: window of {found.steps} and carried "
        f"differ by {found.difference:.2e} of the price on average"
        + (f"; {found.refused:,} ticks were refused" if found.refused else "")
    )
    for horizon, r2 in found.r2.items():
        words = ", ".join(
            f"{name} {'unknown' if value is None else format(value, '.4f')}" for name, value in r2.items()
        )
        typer.echo(f"  R² against no change in {_count(horizon, 'tick')}: {words}")


def _as_json(
    conversion: Conversion,
    comparison: Comparison | None,
    out: Path,
    bundle_id: str,
    stateless: Path | None,
    difference: float | None,
) -> dict[str, Any]:
    manifest = conversion.manifest
    return {
        "bundle": str(out),
        "id": bundle_id,
        "mode": manifest.mode,
        "steps": manifest.steps,
        "why": conversion.decision.reason,
        "sentence": conversion.sentence,
        "engine": conversion.engine,
        "proof": dataclasses.asdict(conversion.proof),
        "modes": None if comparison is None else dataclasses.asdict(comparison),
        "stateless": None if stateless is None else {"file": str(stateless), "difference": difference},
    }
