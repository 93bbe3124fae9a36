"""What pieces of work take at once is what each takes alone."""

from typing import get_args

import numpy as np

from offsim.policy.policy import Policy
from offsim.simulate.costs import Costs
from offsim.simulate.works import Work, seconds_of
from tests.simulate.bounded import LADDER, machine

TOKENS, EARLIER = np.array([1, 2, 3, 5, 9]), np.array([0, 7, 0, 1, 100])


def test_they_are_those_of_the_costs() -> None:
    policy = Policy(codec="cuszp", bound=LADDER[0], prefetch="gate", distance=2)
    costs = Costs(machine(2, 3, 0, attention=0.01), policy, None)
    pairs = list(zip(TOKENS.tolist(), EARLIER.tolist(), strict=True))
    alone = {
        "first": [costs.before_experts_s(0, *pair) for pair in pairs],
        "before": [costs.before_experts_s(1, *pair) for pair in pairs],
        "expert": [costs.expert_s(tokens) for tokens, _ in pairs],
        "kept expert": [costs.kept_expert_s(tokens) for tokens, _ in pairs],
        "head": [costs.head_s(tokens) for tokens, _ in pairs],
        "nothing": [0.0] * len(pairs),
    }
    found = {what: seconds_of(costs, what, TOKENS, EARLIER).tolist() for what in get_args(Work)}
    assert found == alone
