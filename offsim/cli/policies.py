"""From the options of a command to a policy, refused with one sentence where they do not fit."""

import math

from pydantic import ValidationError

from offsim.codec.bounded import check_bound
from offsim.codec.registry import codec_named
from offsim.errors import InputError
from offsim.files import first_problem
from offsim.policy.policy import Policy
from offsim.policy.registry import cache_named


def policy_of(codec: str, bound: float, cache: str = "lru", slots: int = 0) -> Policy:
    """A policy of these parts.

    Raises:
        InputError: no such codec or cache, or a bound that the codec cannot have.
    """
    if codec_named(codec).lossless:
        if bound:
            raise InputError(f"codec {codec} is lossless and takes no bound, not {bound:g}")
    else:
        check_bound(bound)
    cache_named(cache, 1, 1)
    try:
        return Policy(codec=codec, bound=bound, cache=cache, slots=slots)
    except ValidationError as error:
        raise InputError(f"policy: {first_problem(error)}") from error


def link_bytes_per_s(megabytes: float | None) -> float | None:
    """MB/s as bytes/s.

    Raises:
        InputError: not a positive number.
    """
    if megabytes is None:
        return None
    if not (math.isfinite(megabytes) and megabytes > 0):
        raise InputError(f"--link is a speed in MB/s above zero, not {megabytes:g}")
    return megabytes * 1e6
