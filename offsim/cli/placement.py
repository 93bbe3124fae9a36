"""From the options of a command to where experts are: on disk, on the host, compressed or not."""

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from offsim.cli.policies import size_of
from offsim.errors import InputError
from offsim.files import first_problem
from offsim.policy.policy import Policy

if TYPE_CHECKING:
    from offsim.calibration.schema import Calibration, ModelFacts

AUTO = "auto"
MIB = 1 << 20


def placing(
    policy: Policy,
    host_memory: str | None,
    host_tokens: str,
    keep: str,
    decoded_share: float | None = None,
) -> Policy:
    """A policy whose experts are where the options say; `auto` is left for `with_auto`.

    Args:
        policy: any.
        host_memory: bytes of host memory for blobs, such as `64GiB`; None for all of them.
        host_tokens: most tokens that an expert computed on the host serves, or `auto`.
        keep: `decoded`, `compressed` or `both`.
        decoded_share: of `both`; None for the usual one.

    Raises:
        InputError: a value that cannot be, or one that nothing heeds.
    """
    nbytes = None if host_memory is None else size_of(host_memory, "--host-memory")
    if host_tokens != AUTO and not host_tokens.isdecimal():
        raise InputError(f"--host-tokens is a number from 0 on or {AUTO}, not {host_tokens}")
    tokens = 0 if host_tokens == AUTO else int(host_tokens)
    asked: dict[str, Any] = {"host_bytes": nbytes, "host_tokens": tokens, "keep": keep}
    if decoded_share is not None:
        if keep != "both":
            raise InputError(
                f"--decoded-share is of experts that are kept in both tiers, not {keep}; give "
                "--keep both"
            )
        asked["decoded_share"] = decoded_share
    try:
        return Policy(**{**dict(policy), **asked})
    except ValidationError as error:
        raise InputError(f"policy: {first_problem(error)}") from error


def with_memory(policy: Policy, device_memory: str | None, facts: "ModelFacts") -> Policy:
    """The policy with as many slots as fit into device memory, where that was given.

    Each layer has as many; one pool for all has as many in all as there is room for.

    Args:
        policy: any.
        device_memory: such as `3000MiB`; None: it has its slots already.
        facts: of the model.

    Raises:
        InputError: no size, or less than an expert of each layer takes; of any, for one pool.
    """
    if device_memory is None:
        return policy
    pooled = policy.scope == "global"
    at_once = 1 if pooled else facts.layers
    nbytes = at_once * facts.expert_bytes
    count = size_of(device_memory, "--device-memory") // nbytes * at_once
    if not count:
        what = "one expert, which takes" if pooled else "one expert of each layer, which take"
        raise InputError(
            f"--device-memory {device_memory} has no room for {what} {nbytes / MIB:.4g} MiB; give "
            "at least that, or --slots 0"
        )
    if policy.keep != "both":  # of two tiers neither has all of it
        count = min(count, facts.layers * facts.experts)
    slots, extra = divmod(count, facts.layers)
    return policy.model_copy(update={"slots": slots, "extra": extra})


def with_auto(
    policy: Policy, host_tokens: str, calibration: "Calibration", link_bytes_per_s: float | None
) -> Policy:
    """The policy with the number of tokens that `auto` stands for, where it was given.

    Args:
        policy: of `placing`.
        host_tokens: as given.
        calibration: of the machine.
        link_bytes_per_s: pace of the link; None for the machine's own.

    Raises:
        InputError: the host cannot compute under this codec, or its speed is not known.
    """
    if host_tokens != AUTO:
        return policy
    from offsim.simulate.placement import best_host_tokens

    tokens = best_host_tokens(policy, calibration, link_bytes_per_s)
    return policy.model_copy(update={"host_tokens": tokens})
