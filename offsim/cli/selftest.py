"""`offsim selftest`: whether offsim works here."""

from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import devices, display, options

FAILED = 1


def selftest(
    device: devices.DeviceOption = devices.Device.CPU,
    out: Annotated[Path, typer.Option(help="Folder for selftest.json and selftest.txt.")] = Path(
        "selftest"
    ),
    as_json: options.Json = False,
) -> None:
    """Try the codecs, offloading and a short check of predictions, and leave one report.

    Takes one to two minutes. The exit code is 1 where something is not as it should be. Times are
    shown, and not judged: `offsim check` and `offsim fidelity` do that.

    Example: offsim selftest --device cpu --out selftest
    """
    import pandas as pd

    from offsim.runtime.devices import device_named

    computes = device_named(device)
    with display.progress() as tell:
        tell("starting", 0.0)
        from offsim.study.selftest import selftest as run_selftest

        result = run_selftest(computes, out, tell)
    if as_json:
        display.emit_json(result.to_json())
    else:
        rows = [
            {
                "tried": one.name,
                "": "passed" if one.passed else "FAILED",
                "found": one.found,
                "s": f"{one.seconds:.1f}",
            }
            for one in result.tried
        ]
        display.show_table(f"offsim on {result.device}", pd.DataFrame(rows))
        for row in result.comparison.to_dict("records"):
            typer.echo(
                f"{row['codec']} {row['bound']:g}: TPOT SIMULATED "
                f"{row['tpot_simulated'] * 1e3:.2f} ms, MEASURED "
                f"{row['tpot_measured'] * 1e3:.2f} ms ({row['tpot_error']:+.1%})"
            )
        typer.echo(f"{'passed' if result.passed else 'FAILED'}; report: {out / 'selftest.txt'}")
    if not result.passed:
        raise typer.Exit(FAILED)
