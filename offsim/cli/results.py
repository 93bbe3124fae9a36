"""`offsim results`: what a sweep found, as a table, a file, or beside another sweep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    import pandas as pd

ENDS = ("least", "median", "most")
JUDGING = "What they cost and lose"


def results(
    file: Annotated[Path, typer.Argument(help="File of `offsim sweep`.")],
    where: Annotated[
        list[str] | None,
        typer.Option(
            help='Condition on fields, such as "tpot_s < 0.01 and policy.slots <= 4"; as often as '
            "wanted."
        ),
    ] = None,
    sort: Annotated[
        list[str] | None,
        typer.Option(help="Field to sort by; -FIELD: the largest first; as often as wanted."),
    ] = None,
    show: Annotated[
        list[str] | None,
        typer.Option(help="Field to list in place of the usual metrics; as often as wanted."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows that are listed, at most.", min=1)] = 20,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write all rows and fields into this .csv or .parquet (extra `parquet`)."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Another sweep: list by how much the same scenarios differ from it."),
    ] = None,
    pareto: Annotated[
        str | None,
        typer.Option(
            help="Keep what no other scenario beats in these columns, such as "
            "tpot_s,kl,device_bytes; -NAME is to be large.",
            rich_help_panel=JUDGING,
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Draw the first two of them (PNG), --pareto against the rest.",
            rich_help_panel=JUDGING,
        ),
    ] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            help="Folder or file of `offsim sensitivity` on the model: adds the column kl.",
            rich_help_panel=JUDGING,
        ),
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            help="Profile whose price and power add usd_per_mtoken and joules_per_token.",
            rich_help_panel=JUDGING,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List, filter, sort, export or compare what sweeps found.

    Example: offsim results sweep.sqlite --where "policy.slots <= 4" --sort tpot_s
    Or: offsim results sweep.sqlite --pareto tpot_s,device_bytes --figure front.png
    """
    from offsim.errors import InputError
    from offsim.study.sweep.judged import DERIVED, aims_of, front
    from offsim.study.sweep.query import check_fields

    aims = None if pareto is None else aims_of(pareto)
    if figure is not None and (aims is None or figure.suffix != ".png"):
        raise InputError(f"--figure {figure}: a .png of --pareto; give both")
    check_fields(name for name in show or () if name not in DERIVED)
    table = _judged(_read(file, where, sort), sensitivity, hardware)
    if aims is not None:
        every, table = table, front(table[table["status"] == "done"], aims)
        names = [aim.removeprefix("-") for aim in aims]
        show = list(dict.fromkeys([*names, *(show or ())]))
        if figure is not None:
            from offsim.report.front import front_figure
            from offsim.report.style import png

            _write(figure, png(front_figure(every, table, names)))
    if against is None:
        if export is not None:
            _export(table.drop(columns="config"), export)
        title = file.name if aims is None else f"{file.name}, what nothing beats"
        _list(title, table, show, limit, as_json)
        return
    from offsim.study.sweep.compare import compared
    from offsim.study.sweep.query import USUAL

    found = compared(table, _read(against, where, None))
    if export is not None:
        _export(found.table, export)
    title = f"{file.name} against {against.name} {_labels(table)}"
    if as_json:
        changes = {name: dict(zip(ENDS, ends, strict=True)) for name, ends in found.changes.items()}
        counts = {"both": len(found.table), "only": found.only, "only_against": found.only_against}
        display.emit_json({**counts, "changes": changes, "scenarios": _records(found.table, limit)})
        return
    # Of the other metrics there is room for their changes alone.
    left_out = [f"{name}{end}" for name in USUAL[1:] for end in ("", "_against")]
    display.show_table(title, found.table.drop(columns=left_out).head(limit))
    facts: dict[str, object] = {
        "scenarios of both": f"{len(found.table):,}",
        "of the first alone": f"{found.only:,}",
        "of the other alone": f"{found.only_against:,}",
    }
    facts |= {
        f"change of {name}": " / ".join(f"{end:+.2%}" for end in ends) + f" ({', '.join(ENDS)})"
        for name, ends in found.changes.items()
    }
    display.show_facts(title, facts)


def _read(file: Path, where: list[str] | None, sort: list[str] | None) -> "pd.DataFrame":
    from offsim.study.sweep.database import reading
    from offsim.study.sweep.query import rows

    with reading(file) as sql:
        return rows(sql, where or (), sort or ())


def _judged(
    table: "pd.DataFrame", sensitivity: Path | None, hardware: str | None
) -> "pd.DataFrame":
    """With what scenarios lose and cost, where it is asked for."""
    from offsim.study.sweep.judged import with_cost, with_loss

    if sensitivity is not None:
        from offsim.accuracy.sensitivity import Sensitivity
        from offsim.files import read_json

        file = sensitivity / "sensitivity.json" if sensitivity.is_dir() else sensitivity
        table = with_loss(table, read_json(file, Sensitivity))
    if hardware is not None:
        from offsim.calibration.profiles import load_profile

        gpu = load_profile(hardware).gpu
        price = None if gpu.price_usd_per_h is None else gpu.price_usd_per_h.value
        table = with_cost(table, price, gpu.power_w.value)
    return table


def _write(path: Path, image: bytes) -> None:
    from offsim.files import replacing

    with replacing(path) as partial:
        partial.write_bytes(image)


def _list(
    name: str, table: "pd.DataFrame", show: list[str] | None, limit: int, as_json: bool
) -> None:
    """Scenarios that were answered as a table, and why others were not."""
    from offsim.study.sweep.query import USUAL, differing

    counts = {one: int((table["status"] == one).sum()) for one in ("done", "refused", "open")}
    if as_json:
        plain = table.drop(columns="config")
        display.emit_json({"counts": counts, "scenarios": _records(plain, limit)})
        return
    done = table[table["status"] == "done"]
    mixed = ["label"] if done["label"].nunique() > 1 else []
    columns = dict.fromkeys(["number", *differing(table), *(show or USUAL), *mixed])
    said = ", ".join(f"{count:,} {one}" for one, count in counts.items() if count or one == "done")
    known = [column for column in columns if column in table]
    display.show_table(f"{name}: {said} {_labels(table)}".rstrip(), done[known].head(limit))
    if len(done) > limit:
        typer.echo(f"{len(done) - limit:,} more; --limit {len(done)} lists them, --export all")
    refused = table.loc[table["status"] == "refused", "error"].value_counts()
    if len(refused):
        why = refused.head(limit).rename_axis("refused because").reset_index(name="scenarios")
        display.show_table("Refused", why)


def _labels(table: "pd.DataFrame") -> str:
    labels = sorted(table["label"].dropna().unique())
    return f"[{', '.join(labels)}]" if labels else ""


def _records(table: "pd.DataFrame", limit: int) -> list[dict[Any, Any]]:
    return table.head(limit).to_dict("records")


def _export(table: "pd.DataFrame", path: Path) -> None:
    """Write a table by the suffix of its file, whole or not at all.

    Raises:
        InputError: another suffix, or no pyarrow.
    """
    from offsim.errors import InputError
    from offsim.files import replacing

    if path.suffix not in {".csv", ".parquet"}:
        raise InputError(f"--export {path}: a file is .csv or .parquet")
    try:
        with replacing(path) as partial:
            if path.suffix == ".csv":
                table.to_csv(partial, index=False)
            else:
                table.to_parquet(partial, index=False, engine="pyarrow")
    except ImportError as error:
        raise InputError(
            f"--export {path}: Parquet needs pyarrow: pip install 'offsim[parquet]', or take .csv"
        ) from error
