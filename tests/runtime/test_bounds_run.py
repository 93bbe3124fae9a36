"""A run and a simulation of a table of bounds move the same bytes."""

import pytest
from transformers import PreTrainedModel

from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bound_kinds import by_hotness, by_layer, by_matrix
from offsim.policy.bounds import Bounds, Rule
from offsim.policy.lookup import popularity_of
from offsim.policy.policy import Policy
from offsim.record import Load, metrics_of
from offsim.runtime import ExpertStore, run_offloaded
from offsim.simulate import simulate
from offsim.study.prepare import recorded
from tests.builders import TOY, calibration, codec_figures

PROMPTS = [[10, 40, 41, 42, 43], [10, 60, 61]]
COUNT = 5
FINE, WIDE, WIDEST = Bound(2.0**-9), Bound(2.0**-6), Bound(2.0**-4)
TABLES = {
    "layer": by_layer([FINE, WIDE, WIDEST]),
    "expert": by_hotness(popularity_of(TOY), 0.5, FINE, WIDEST, 3, 4),
    "matrix": by_matrix(FINE, WIDEST, WIDE),
}
MIXED = Bounds(
    default=WIDE,
    rules=(
        Rule(codec="rtn-int4", layers=(0,)),
        Rule(codec="rtn-int8", layers=(2,), experts=(1, 3)),
        Rule(codec="raw", layers=(2,), matrices=("down",)),
    ),
)


@pytest.mark.parametrize("codec", ["cuszp", "sz3"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_simulation_and_run_move_the_same_bytes(
    tiny_model: PreTrainedModel, codec: str, table: Bounds
) -> None:
    compare(tiny_model, codec, table, [(codec, one.value) for one in (FINE, WIDE, WIDEST)])


def test_so_they_do_where_codecs_are_mixed(tiny_model: PreTrainedModel) -> None:
    others = [(name, 0.0) for name in ("rtn-int4", "rtn-int8", "raw")]
    compare(tiny_model, "cuszp", MIXED, [("cuszp", WIDE.value), *others])


def compare(
    tiny_model: PreTrainedModel, codec: str, table: Bounds, keys: list[tuple[str, float]]
) -> None:
    # The figures come from stores of one codec and bound each, as calibration fills them.
    figures = []
    for key, bound in keys:
        alike = ExpertStore.of(tiny_model, codec_named(key), bound)
        sizes = {"blob_bytes": alike.blob_bytes, "matrix_bytes": alike.matrix_bytes}
        figures.append(codec_figures(key, bound).model_copy(update=sizes))
    made = calibration(*figures)
    store = ExpertStore.of(tiny_model, codec_named(codec), table)
    facts = {"hidden": store.shape.hidden, "width": store.shape.width}
    made = made.model_copy(update={"model": made.model.model_copy(update=facts)})
    policy = Policy(codec=codec, bounds=table, slots=2)
    recording = recorded(tiny_model, "tiny", store, PROMPTS, COUNT)
    run = run_offloaded(tiny_model, store, policy, PROMPTS, COUNT, 1e8)
    assert run.tokens == recording.tokens
    for engine in ("fast", "simpy"):
        simulated = simulate(recording.trace, policy, made, 1e8, engine=engine)
        assert run.record.decisions() == simulated.decisions()
        assert metrics_of(run.record).link_bytes == metrics_of(simulated).link_bytes > 0
        loads, expected = (
            [bytes_of(load) for step in record.steps for load in step.loads]
            for record in (run.record, simulated)
        )
        assert loads == expected
        if codec == "cuszp":
            assert len({nbytes for *_, nbytes in loads}) > 1


def bytes_of(load: Load) -> tuple[int, int, int]:
    return load.layer, load.expert, load.link_bytes


def test_a_table_of_another_model_is_refused(tiny_model: PreTrainedModel) -> None:
    with pytest.raises(InputError, match="about layer 3, and the model has layers 0 to 2"):
        ExpertStore.of(tiny_model, codec_named("cuszp"), by_layer([FINE, FINE, WIDE, WIDE]))
