"""What compute takes for pieces of work, many at once."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from offsim.calibration.reading import at_sizes
from offsim.simulate.clock import Ints
from offsim.simulate.costs import Costs

Work = Literal["first", "before", "expert", "kept expert", "head", "nothing"]
"""Before the experts of the first layer and of a later one; an expert; one that is decoded for this
use from a blob on the device; from the last layer to the token; what the host does."""


def seconds_of(
    costs: Costs, what: Work, tokens: Ints, earlier: Ints | None = None
) -> npt.NDArray[np.float64]:
    """[works] s that compute takes, as `Costs` tells them one by one.

    Args:
        costs: of everything.
        what: all of them are.
        tokens: [works] that each serves.
        earlier: [works] see `Costs.before_experts_s`; None for none.
    """
    compute, kept = costs.calibration.compute, costs.codec.kept
    match what:
        case "first" | "before":
            dense = at_sizes(compute.first if what == "first" else compute.dense, tokens)
            alone = dense + at_sizes(compute.dispatch, tokens) + costs.foresight_s(tokens)
            return alone if earlier is None else alone + earlier * costs.attention_s
        case "expert":
            return at_sizes(compute.expert, tokens)
        case "kept expert":
            return at_sizes(compute.expert if kept is None else kept.expert, tokens)
        case "head":
            return at_sizes(compute.head, tokens)
        case "nothing":
            return np.zeros(len(tokens))
