"""From the options of a command to a policy, refused with one sentence where they do not fit."""

import math
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Literal

import typer
from pydantic import ValidationError

from offsim.cli.replay import UNITS, whole_bytes
from offsim.codec.bounded import check_bound
from offsim.codec.registry import codec_named
from offsim.errors import InputError
from offsim.files import first_problem, read_yaml
from offsim.policy.bounds import Bounds, check_one_place
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.oracle import NoisyOracle
from offsim.policy.prefetchers.registry import NONE, prefetcher_named
from offsim.policy.registry import eviction_named
from offsim.policy.transfer import Transfer


def policy_of(
    codec: str,
    bound: float,
    cache: str = "lru",
    slots: int = 0,
    scope: Literal["layer", "global"] = "layer",
    bounds: Path | Bounds | None = None,
) -> Policy:
    """A policy of these parts.

    Args:
        codec: its name.
        bound: of all matrices; 0 where `bounds` is given, and for a codec that takes none.
        cache: name of the eviction policy.
        slots: of each layer.
        scope: of a pool.
        bounds: a table of bounds, or the file of one.

    Raises:
        InputError: no such codec or cache, a bound that the codec cannot have, a bound beside a
            table, or a table that cannot be read.
        FormatError: the file is not a table of bounds.
    """
    known = codec_named(codec)
    if bounds is not None and bound:
        raise InputError("--bound and --bounds both say what the bounds are; give one of them")
    table = read_yaml(bounds, Bounds) if isinstance(bounds, Path) else bounds
    if table is not None and known.promise != "bound":
        raise InputError(f"codec {codec} takes no bounds; leave --bounds out")
    if table is not None:
        check_one_place(known, table)
    if table is None and known.promise == "bound":
        check_bound(bound)
    elif bound:
        kind = "is lossless and" if known.promise == "exact" else "promises nothing and"
        raise InputError(f"codec {codec} {kind} takes no bound, not {bound:g}")
    eviction_named(cache)
    try:
        return Policy(
            codec=str(known), bound=bound, bounds=table, cache=cache, slots=slots, scope=scope
        )
    except ValidationError as error:
        raise InputError(f"policy: {first_problem(error)}") from error


def prefetching(
    policy: Policy,
    prefetch: str,
    distance: int,
    budget: str | None,
    precision: float,
    recall: float,
) -> Policy:
    """A policy with a prefetcher.

    Args:
        policy: without one.
        prefetch: name of the prefetcher, or `none`.
        distance: layers that it looks ahead.
        budget: bytes that it may issue in a step, such as `64MiB`; None for all it likes.
        precision: of a noisy oracle.
        recall: likewise.

    Raises:
        InputError: no such prefetcher, a value that it cannot have, or one that it does not heed.
    """
    prefetcher_named(prefetch)
    if prefetch == NONE and (distance > 1 or budget is not None):
        raise InputError("--distance and --prefetch-budget are of a prefetcher; give --prefetch")
    if prefetch != NoisyOracle.name and (precision, recall) != (1, 1):
        raise InputError(f"--precision and --recall are of {NoisyOracle.name}, not of {prefetch}")
    nbytes = None if budget is None else size_of(budget, "--prefetch-budget")
    asked = {
        "prefetch": prefetch,
        "distance": distance,
        "prefetch_bytes": nbytes,
        "precision": precision,
        "recall": recall,
    }
    try:
        return Policy(**{**dict(policy), **asked})
    except ValidationError as error:
        raise InputError(f"policy: {first_problem(error)}") from error


def moving(
    policy: Policy, chunk: str | None, pipelined: bool, channels: int, decoders: int
) -> Policy:
    """A policy whose loads move in this way.

    Args:
        policy: any.
        chunk: most bytes of a part, such as `1MiB`; None for whole loads.
        pipelined: whether chunks are decoded one by one.
        channels: links side by side.
        decoders: of the host.

    Raises:
        InputError: a value that cannot be, or one that nothing heeds.
    """
    if pipelined and chunk is None:
        raise InputError("--pipelined decodes chunk by chunk; give --chunk")
    if decoders > 1 and codec_named(policy.codec).placement != "host":
        raise InputError(f"--decoders are of the host, and {policy.codec} is decoded on the device")
    nbytes = None if chunk is None else size_of(chunk, "--chunk")
    try:
        transfer = Transfer(
            chunk_bytes=nbytes, pipelined=pipelined, channels=channels, decoders=decoders
        )
    except ValidationError as error:
        raise InputError(f"policy: {first_problem(error)}") from error
    return policy.model_copy(update={"transfer": transfer})


def size_of(text: str, option: str) -> int:
    """Bytes of a size such as `64MiB`, or a number of bytes.

    Raises:
        InputError: neither of these, or as for `whole_bytes`.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    units = {"": 1, "B": 1, **UNITS}
    if found is None or found[2] not in units:
        raise InputError(f"{option} is such as 64MiB ({', '.join(UNITS)}) or bytes, not {text}")
    return whole_bytes(float(found[1]) * units[found[2]], option)


def described(policy: Policy) -> str:
    """A policy in words, with how its loads move."""
    return ", ".join(filter(None, (str(policy), str(policy.transfer))))


class Pace(StrEnum):
    """Link speeds that are not numbers."""

    PACED = "paced"
    PLAIN = "plain"


def link_speed(text: str) -> float | Pace:
    """`paced`, `plain`, or MB/s as bytes/s.

    Raises:
        InputError: none of these, or not a positive number.
    """
    if text in tuple(Pace):
        return Pace(text)
    try:
        megabytes = float(text)
    except ValueError:
        megabytes = math.nan
    if not (math.isfinite(megabytes) and megabytes > 0):
        raise InputError(f"--link is `paced`, `plain` or MB/s above zero, not {text}")
    return megabytes * 1e6


def resolved(speed: float | Pace, layer_s: Callable[[], float], expert_bytes: int) -> float | None:
    """Bytes/s of a link, None for plain copies; says on stderr what a paced link imitates.

    Args:
        speed: as given.
        layer_s: gives the compute of one layer and token, s; called for `paced` only.
        expert_bytes: of one expert in its stored dtype.
    """
    from offsim.study.reference import MIXTRAL_PCIE4, pace_at

    if speed is Pace.PLAIN:
        return None
    if speed is not Pace.PACED:
        return float(speed)
    pace = pace_at(layer_s(), expert_bytes)
    typer.echo(
        f"link paced to {pace / 1e6:.1f} MB/s: an expert in its stored dtype takes "
        f"{MIXTRAL_PCIE4.ratio:.2f} times as long as the compute of one layer and token, as for "
        f"{MIXTRAL_PCIE4.name} [ESTIMATED], whose link is "
        f"{MIXTRAL_PCIE4.link_bytes_per_s / pace:.0f} times as fast; decoding is not slowed",
        err=True,
    )
    return pace
