"""`offsim trace replay`: a cache over a trace, without time."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    from offsim.trace import Trace

LARGEST = 1 << 60
"""No size that is given is larger, bytes: sums of a few fit into 64 bits."""
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def replay(
    trace: Annotated[Path, typer.Argument(help="Trace file.")],
    cache: options.Cache = "lru",
    scope: options.Scope = options.PoolScope.LAYER,
    capacity: Annotated[
        str,
        typer.Option(help="Of all pools together, such as 3000MiB, or 4slots: experts a layer."),
    ] = "4slots",
    expert_bytes: Annotated[
        int | None, typer.Option(help="Of one expert, where the trace does not say it.", min=1)
    ] = None,
    profile: options.Profile = None,
    seed: Annotated[int, typer.Option(help="Of a cache that draws.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Replay a trace through a cache: lookups, hits and bytes, no time.

    Every layer and step is one lookup for its distinct experts; a prompt is one step.

    Example: offsim trace replay traces/embedded.safetensors --cache belady --capacity 4slots
    """
    from offsim.errors import InputError
    from offsim.policy.lookup import future_of, popularity_of
    from offsim.policy.registry import cache_of, eviction_named
    from offsim.policy.replay import replay as replayed
    from offsim.trace import load_trace

    kind = eviction_named(cache)
    slots, nbytes = _capacity(capacity)
    loaded = load_trace(trace)
    sizes = _sizes(loaded, expert_bytes)
    if nbytes is not None and sizes is None:
        raise InputError(f"{trace} does not say how large an expert is; give --expert-bytes")
    pools = loaded.layers if scope is options.PoolScope.LAYER else 1
    if nbytes is None:
        capacities, size_of = [slots * loaded.layers // pools] * pools, [1] * loaded.layers
    else:
        capacities, size_of = [nbytes // pools] * pools, sizes or []
    counts = replayed(
        loaded,
        cache_of(
            cache,
            capacities,
            lambda key: size_of[key[0]],
            seed,
            popularity_of(load_trace(profile)) if profile is not None else None,
            future_of(loaded) if kind.oracle else None,
        ),
        sizes or [0] * loaded.layers,
    )
    facts = {
        "lookups": counts.lookups,
        "hits": counts.hits,
        "hit_rate": counts.hit_rate,
        "hit_rate_decode": counts.hit_rate_decode,
        "bytes_read": counts.bytes_read if sizes else None,
    }
    if as_json:
        display.emit_json(facts)
        return
    title = f"{trace.name}: {cache} of {capacity}, {scope} [SIMULATED]"
    display.show_facts(title, {name.replace("_", " "): value for name, value in facts.items()})


def _capacity(text: str) -> tuple[int, int | None]:
    """Slots a layer, or bytes of all pools; the other is 0 or None."""
    from offsim.errors import InputError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text)
    if found is not None:
        number, unit = float(found[1]), found[2]
        if unit in ("slots", "slot") and number.is_integer():
            return int(number), None
        if unit in UNITS:
            return 0, whole_bytes(number * UNITS[unit], "--capacity")
    raise InputError(f"--capacity is such as 4slots or 3000MiB ({', '.join(UNITS)}), not {text}")


def whole_bytes(nbytes: float, option: str) -> int:
    """A size that is given, in whole bytes.

    Args:
        nbytes: >= 0; infinite where it has more digits than a float can.
        option: that gives it.

    Raises:
        InputError: it is larger than `LARGEST`.
    """
    from offsim.errors import InputError

    if nbytes > LARGEST:
        most = LARGEST / UNITS["GiB"]
        raise InputError(f"{option} is at most {most:.3g} GiB, not {nbytes:.3g} B")
    return int(nbytes)


def _sizes(trace: "Trace", expert_bytes: int | None) -> list[int] | None:
    """Bytes of an expert of each layer, if they are known."""
    if expert_bytes is not None:
        return [expert_bytes] * trace.layers
    known = trace.info.layer_bytes
    return None if known is None else list(known)
