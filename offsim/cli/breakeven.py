"""`offsim breakeven`: where compressed experts are faster than raw ones."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    from offsim.policy.policy import Policy
    from offsim.study.breakeven import Breakevens


def breakeven(
    trace: Annotated[Path, typer.Option(help="Trace file.")],
    calibration: options.CalibrationFile,
    codec: Annotated[
        list[str] | None,
        typer.Option(help="NAME:BOUND, as often as wanted; default: all of the calibration."),
    ] = None,
    cache: options.Cache = "lru",
    slots: options.Slots = 4,
    scope: options.Scope = options.PoolScope.LAYER,
    profile: options.Profile = None,
    prefetch: options.Prefetch = "none",
    distance: options.Distance = 1,
    prefetch_budget: options.PrefetchBudget = None,
    precision: options.Precision = 1.0,
    recall: options.Recall = 1.0,
    chunk: options.Chunk = None,
    pipelined: options.Pipelined = False,
    channels: options.Channels = 1,
    decoders: options.Decoders = 1,
    host_memory: options.HostMemory = None,
    host_tokens: options.HostTokens = "0",
    keep: options.Keep = options.KeepName.DECODED,
    link: options.LinkSpeed = "paced",
    figure: Annotated[Path | None, typer.Option(help="Also draw it into this PNG.")] = None,
    as_json: options.Json = False,
) -> None:
    """Find the bandwidth and the cache size up to which each codec is faster than raw.

    Example: offsim breakeven --trace traces/embedded.safetensors --calibration
    calibration/machines/xeon-2core.yaml --codec cuszp:0.0625 --slots 3 --link 60
    """
    from offsim.cli.case import case_of
    from offsim.cli.placement import placing, with_auto
    from offsim.cli.policies import moving, policy_of, prefetching
    from offsim.files import check_writable
    from offsim.study.breakeven import breakevens

    policy = policy_of("raw", 0.0, cache, slots, scope.value)
    policy = prefetching(policy, prefetch, distance, prefetch_budget, precision, recall)
    policy = moving(policy, chunk, pipelined, channels, 1)  # raw has nothing to decode, others may
    policy = policy.model_copy(
        update={"transfer": policy.transfer.model_copy(update={"decoders": decoders})}
    )
    policy = placing(policy, host_memory, host_tokens, keep.value)
    keys = [_key(text) for text in codec or ()]
    if figure is not None:
        check_writable(figure.parent)
    case = case_of(trace, calibration, policy, link, profile)
    policy = with_auto(policy, host_tokens, case.calibration, case.link_bytes_per_s)
    case = case.with_policy(host_tokens=policy.host_tokens)
    with display.progress(as_json) as tell:
        found = breakevens(case, keys, tell)
        if figure is not None:
            from offsim.files import replacing
            from offsim.report.breakevens import breakeven_figure
            from offsim.report.style import png

            image = png(breakeven_figure(found, _about(policy)))
            with replacing(figure) as partial:
                partial.write_bytes(image)
    if as_json:
        display.emit_json({**asdict(found), "setting": policy.model_dump(mode="json")})
    else:
        _show(found, policy)


def _key(text: str) -> tuple[str, float]:
    """Codec and bound of NAME:BOUND.

    Raises:
        InputError: it is not of this form, or no codec can have this bound.
    """
    from offsim.cli.policies import policy_of
    from offsim.errors import InputError

    name, colon, bound = text.rpartition(":")
    name, bound = (name, bound) if colon else (text, "0")
    try:
        return policy_of(name, float(bound)).key
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
