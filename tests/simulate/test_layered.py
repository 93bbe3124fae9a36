"""Layers that share nothing are decided anew only where their bytes are others."""

from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds, Rule
from offsim.policy.policy import Policy
from offsim.simulate.costs import Costs
from offsim.simulate.layered import Layered
from tests.builders import TOY
from tests.simulate.bounded import LADDER, machine


def test_decisions_of_layers_that_stay_alike_are_kept() -> None:
    policy = Policy(codec="cuszp", bound=LADDER[0], keep="compressed", slots=2)
    figures, layered = machine(3, 4, 0), Layered(TOY, None)
    made = []
    for rules in ((), (Rule(bound=Bound(1.0), layers=(1,)),)):
        bounds = Bounds(default=Bound(0.25), rules=rules)
        under = policy.model_copy(update={"bound": 0.0, "bounds": bounds})
        layered.planned(under, Costs(figures, under, None))
        made.append([layered.made(layer) for layer in range(3)])
    assert [a is b for a, b in zip(*made, strict=True)] == [True, False, True]
