"""From the options of a command to a second blob, in which misses of low router weight come."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from offsim.policy.policy import Policy

PRECISION = "Precision"
LowBlob = Annotated[
    str | None,
    typer.Option(
        "--low",
        metavar="CODEC:BOUND",
        help="A coarser blob for missing experts of low router weight, such as cuszp:0.03125 or "
        "rtn-int4.",
        rich_help_panel=PRECISION,
    ),
]
LowBelow = Annotated[
    float | None,
    typer.Option(
        "--low-below",
        help="A weight below this share of a token's is low, above 0 to 1.",
        rich_help_panel=PRECISION,
    ),
]


def loading_low(policy: "Policy", low: str | None, below: float | None) -> "Policy":
    """A policy whose misses of low weight come as the options say.

    Args:
        policy: any.
        low: codec and bound of the coarser blob, such as `cuszp:0.03125`; None for no such blob.
        below: a weight below this share is low.

    Raises:
        InputError: one of the two without the other, no such codec, a bound that it cannot have,
            or a share that cannot be.
    """
    from pydantic import ValidationError

    from offsim.cli.policies import policy_of
    from offsim.errors import InputError
    from offsim.files import first_problem
    from offsim.policy.precision import Low

    if low is None and below is None:
        return policy
    if low is None or below is None:
        raise InputError("--low and --low-below say together what comes coarse; give both")
    stored = policy_of(*_codec_and_bound(low))
    try:
        coarse = Low(codec=stored.codec, bound=stored.bound, below=below)
    except ValidationError as error:
        raise InputError(f"policy: low.{first_problem(error)}") from error
    return policy.model_copy(update={"low": coarse})


def _codec_and_bound(text: str) -> tuple[str, float]:
    """`cuszp:mode=plain:0.5` in its parts; the bound is 0 where none is given."""
    from offsim.errors import InputError

    name, _, bound = text.rpartition(":")
    if not name or "=" in bound:  # options of the codec, and no bound
        return text, 0.0
    try:
        return name, float(bound)
    except ValueError:
        raise InputError(f"--low {text}: {bound!r} is not a number") from None
