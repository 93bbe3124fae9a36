"""Whether to move a missing expert to the device or to compute it where it is, on the host."""

import numpy as np

from offsim.calibration.reading import at_sizes
from offsim.calibration.schema import Calibration
from offsim.policy.policy import Policy
from offsim.simulate.costs import Costs
from offsim.simulate.loads import HOST_DECODE

MOST_TOKENS = 4096
"""That one expert is asked about; the host that is faster even then is taken to be always."""


def moving_pays_from(costs: Costs) -> int | None:
    """From how many tokens of a lookup on it is faster to move an expert than to compute it there.

    One expert alone, of mean size, its blob in host memory, without queues or hand-overs: to move
    it takes its load and its compute on the device; the host takes to decode it, where its codec
    does that there, to compute, and to get hidden states there and back. That an expert which was
    moved may be asked for again is not counted.

    Args:
        costs: of a policy for which the host may compute.

    Returns:
        The smallest number of tokens at which moving takes less; None where it never does up to
        MOST_TOKENS.

    Raises:
        ValueError: the calibration does not say how fast the host computes.
    """
    compute, model = costs.calibration.compute, costs.calibration.model
    if not compute.host_expert:
        raise ValueError("the calibration does not say how fast the host computes experts")
    places = [(layer, e) for layer in range(model.layers) for e in range(model.experts)]
    stages = costs.stages_s(round(np.mean([costs.link_bytes(*place) for place in places])))
    tokens = np.arange(1, MOST_TOKENS + 1)
    there = [costs.transfer_s(costs.activation_bytes(count)) for count in tokens.tolist()]
    moved = sum(stages) + at_sizes(compute.expert, tokens)
    stays = stages[HOST_DECODE] + at_sizes(compute.host_expert, tokens) + np.array(there)
    faster = np.flatnonzero(moved < stays)
    return int(tokens[faster[0]]) if len(faster) else None


def best_host_tokens(
    policy: Policy, calibration: Calibration, link_bytes_per_s: float | None
) -> int:
    """The `host_tokens` of a policy that moves an expert from where on that is faster.

    Args:
        policy: its codec.
        calibration: of the machine.
        link_bytes_per_s: pace of the link; None for the machine's own.

    Raises:
        InputError: as for `Costs` of a policy for which the host computes.
    """
    asked = policy.model_copy(update={"host_tokens": 1})
    start = moving_pays_from(Costs(calibration, asked, link_bytes_per_s))
    return MOST_TOKENS if start is None else start - 1
