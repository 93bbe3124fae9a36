"""`offsim breakeven`: where compressed experts are faster than raw ones."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import display, options
from offsim.cli.groups import Loading, Placement, Storage, grouped

if TYPE_CHECKING:
    from offsim.policy.bounds import Bounds
    from offsim.policy.policy import Policy
    from offsim.study.breakeven import Breakevens


@grouped
def breakeven(
    *,
    trace: options.TraceFile,
    calibration: options.CalibrationFile,
    codec: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME:BOUND, or NAME for what has no bound of its own; as often as wanted; "
            "default: all of the calibration."
        ),
    ] = None,
    bounds: Annotated[
        Path | None,
        typer.Option(
            "--bounds",
            help="Table of bounds (YAML, `offsim bounds make`) of each --codec that is given as "
            "NAME alone.",
        ),
    ] = None,
    loading: Loading,
    placement: Placement,
    link: options.LinkSpeed = "paced",
    figure: options.Figure = None,
    as_json: options.Json = False,
) -> None:
    """Find the bandwidth and the cache size up to which each codec is faster than raw.

    Example: offsim breakeven --trace traces/embedded.safetensors --calibration
    calibration/machines/xeon-2core.yaml --codec cuszp:0.0625 --slots 3 --link 60
    """
    from offsim.cli.case import asked_policy, case_of
    from offsim.files import check_writable
    from offsim.study.breakeven import breakevens
    from offsim.trace import load_trace

    # Raw has nothing that the host could decode, others may.
    policy = asked_policy(Storage(), replace(loading, decoders=1), placement)
    transfer = policy.transfer.model_copy(update={"decoders": loading.decoders})
    policy = policy.model_copy(update={"transfer": transfer})
    asked = _asked(codec or [], bounds)
    if figure is not None:
        check_writable(figure.parent)
    case = case_of(load_trace(trace), calibration, policy, link, loading.profile, placement)
    with display.progress(as_json) as tell:
        found = breakevens(case, asked, tell)
        if figure is not None:
            from offsim.files import replacing
            from offsim.report.breakevens import breakeven_figure
            from offsim.report.style import png

            image = png(breakeven_figure(found, _about(case.policy)))
            with replacing(figure) as partial:
                partial.write_bytes(image)
    if as_json:
        display.emit_json({**asdict(found), "setting": case.policy.model_dump(mode="json")})
    else:
        _show(found, case.policy)


def _asked(codecs: list[str], bounds: Path | None) -> list[tuple[str, "float | Bounds"]]:
    """Each codec with its bound, or with the table where it is given as NAME alone.

    Raises:
        InputError: one is not of this form, no codec can have this bound, the table cannot be read,
            or it is of no codec.
        FormatError: the file is not a table of bounds.
    """
    from offsim.errors import InputError

    found = [_codec(text, bounds) for text in codecs]
    if bounds is not None and not any(policy.bounds for policy in found):
        raise InputError("--bounds is of a codec without a bound of its own; give --codec NAME")
    return [(policy.codec, policy.bounds or policy.bound) for policy in found]


def _codec(text: str, bounds: Path | None) -> "Policy":
    """A policy with the codec and bound of NAME:BOUND, or the table of bounds for NAME."""
    from offsim.cli.policies import policy_of
    from offsim.codec.registry import codec_named
    from offsim.errors import InputError

    name, colon, bound = text.rpartition(":")
    if not colon or "=" in bound:  # options of the codec, and no bound
        takes_bounds = codec_named(text).promise == "bound"
        return policy_of(text, 0.0, bounds=bounds if takes_bounds else None)
    try:
        return policy_of(name, float(bound))
    except ValueError:
        raise InputError(f"--codec {text}: {bound!r} is not a number") from None


def _about(policy: "Policy") -> str:
    """All of a policy but the codec."""
    from offsim.cli.policies import described

    return described(policy).partition(", ")[2]


def _show(found: "Breakevens", policy: "Policy") -> None:
    import pandas as pd

    from offsim.study.answers import bandwidth_verdict, slots_verdict, speed
    from offsim.units import show_seconds

    low, high = found.bandwidths[0], found.bandwidths[-1]
    rows = [
        {
            "codec": one.storage,
            f"faster than raw, {speed(low)} to {speed(high)}": bandwidth_verdict(one),
            f"at {speed(found.link_bytes_per_s)}, by slots": slots_verdict(one, found.slots),
        }
        for one in found.codecs
    ]
    title = f"Break-even with raw, {_about(policy)} [{found.label}]"
    display.show_table(title, pd.DataFrame(rows))
    times = {"raw": found.raw_slots_tpot_s} | {o.storage: o.slots_tpot_s for o in found.codecs}
    table = pd.DataFrame({name: list(map(show_seconds, row)) for name, row in times.items()})
    table.insert(0, "slots", found.slots)
    display.show_table(f"TPOT at {speed(found.link_bytes_per_s)} [{found.label}]", table)
    alone = [
        {
            "codec": one.storage,
            "raw on the link": show_seconds(one.alone.raw_s),
            "blob on the link and decoded": show_seconds(one.alone.codec_s),
            "as long at": _closed(one.alone.bytes_per_s),
        }
        for one in found.codecs
    ]
    display.show_table("One expert alone, without queues [ESTIMATED]", pd.DataFrame(alone))
    if any(one.verdict == "several" for one in found.codecs):
        typer.echo(
            "Codec and raw overtake each other more than once: decoding and compute slow each "
            "other, and a slower link keeps them apart."
        )


def _closed(bytes_per_s: float) -> str:
    from offsim.study.answers import speed

    if math.isinf(bytes_per_s):
        return "always faster"
    return speed(bytes_per_s) if bytes_per_s else "never faster"
