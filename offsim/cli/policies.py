"""From the options of a command to a policy, refused with one sentence where they do not fit."""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Literal

import typer
from pydantic import ValidationError

from offsim.codec.bounded import check_bound
from offsim.codec.registry import codec_named
from offsim.errors import InputError
from offsim.files import first_problem
from offsim.policy.policy import Policy
from offsim.policy.registry import eviction_named


def policy_of(
    codec: str,
    bound: float,
    cache: str = "lru",
    slots: int = 0,
    scope: Literal["layer", "global"] = "layer",
) -> Policy:
    """A policy of these parts.

    Raises:
        InputError: no such codec or cache, or a bound that the codec cannot have.
    """
    known = codec_named(codec)
    if known.promise == "bound":
        check_bound(bound)
    elif bound:
        kind = "is lossless and" if known.promise == "exact" else "promises nothing and"
        raise InputError(f"codec {codec} {kind} takes no bound, not {bound:g}")
    eviction_named(cache)
    try:
        return Policy(codec=str(known), bound=bound, cache=cache, slots=slots, scope=scope)
    except ValidationError as error:
        raise InputError(f"policy: {first_problem(error)}") from error


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
