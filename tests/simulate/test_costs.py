import numpy as np

from offsim.calibration.schema import ForesightFigures
from offsim.policy.policy import Policy
from offsim.simulate.costs import Costs, kinds_of
from tests.builders import calibration, codec_figures, sized


def ahead(seconds: float) -> list[ForesightFigures]:
    return [ForesightFigures(prefetch="popularity", distance=1, seconds=sized((1, seconds)))]


def test_foresight_is_that_beside_the_codec_where_it_is_known() -> None:
    own = codec_figures("sz3", 0.125).model_copy(update={"foresight": ahead(2.0)})
    made = calibration(codec_figures(), own)
    compute = made.compute.model_copy(update={"foresight": ahead(0.5)})
    made = made.model_copy(update={"compute": compute})
    for policy, expected in (
        (Policy(prefetch="popularity"), 0.5),
        (Policy(codec="sz3", bound=0.125, prefetch="popularity"), 2.0),
        (Policy(codec="sz3", bound=0.125, prefetch="last-token"), 0.0),
    ):
        costs = Costs(made, policy, None)
        assert costs.foresight_s(np.array([1])).tolist() == [expected]
        still = Costs(made, policy.model_copy(update={"prefetch": "none"}), None)
        added = costs.before_experts_s(1, 1) - still.before_experts_s(1, 1)
        assert abs(added - expected) < 1e-12


def test_compiled_code_need_not_tell_one_kind_of_load_from_several() -> None:
    several = [(0, 0, 0, 1, 0, 1, 10, 0, 0), (0, 0, 0, 2, 0, 1, 20, 0, 0)]
    for loads in (several[:1], several):
        kinds = kinds_of(loads)
        assert all(column.flags.c_contiguous for column in kinds)
