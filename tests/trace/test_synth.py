from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from offsim.errors import FormatError, InputError
from offsim.files import write_text
from offsim.trace import DECODE, PREFILL, Trace, load_trace, save_trace, steps_of
from offsim.trace.statistics import overlap, usage
from offsim.trace.synth import (
    TraceModel,
    fit,
    generate,
    load_model,
    typical_size,
)

from .traces import one_layer, small_trace

EMBEDDED = Path(__file__).parents[2] / "traces" / "embedded.safetensors"
CURVE_ERROR = 0.02
"""Largest difference of a hit rate from the original's, absolute; seeds differ by about 0.01."""


def hit_rate(trace: Trace, slots: int) -> float:
    """Of an LRU cache of each layer that is asked once for the experts of a step."""
    hits = lookups = 0
    for layer in range(trace.layers):
        cache: OrderedDict[int, None] = OrderedDict()
        for step in steps_of(trace):
            wanted = step.experts[:, layer].ravel().tolist()
            hits += sum(expert in cache for expert in set(wanted))
            lookups += len(set(wanted))
            for expert in wanted:
                cache[expert] = None
                cache.move_to_end(expert)
            while len(cache) > slots:
                cache.popitem(last=False)
    return hits / lookups


def alike(original: Trace, made: Trace, sizes: tuple[int, ...]) -> dict[int, float]:
    """Difference of the hit rates by slots."""
    return {slots: hit_rate(made, slots) - hit_rate(original, slots) for slots in sizes}


@pytest.fixture(scope="module")
def embedded() -> Trace:
    return load_trace(EMBEDDED)


@pytest.fixture(scope="module")
def learnt(embedded: Trace) -> TraceModel:
    return fit(embedded)


@pytest.fixture(scope="module")
def recorded(gpt_oss_trace: Trace) -> TraceModel:
    return fit(gpt_oss_trace)


def test_hit_rates_follow_the_embedded_model(embedded: Trace, learnt: TraceModel) -> None:
    assert (learnt.requests, learnt.prompt, learnt.tokens) == typical_size(embedded) == (16, 67, 31)
    made = generate(learnt, 16, 67, 31, seed=1)
    errors = alike(embedded, made, (2, 3, 4, 5, 6))
    assert max(map(abs, errors.values())) <= CURVE_ERROR, errors


def test_hit_rates_follow_gpt_oss(gpt_oss_trace: Trace, recorded: TraceModel) -> None:
    made = generate(recorded, 12, 0, 511, seed=1)
    errors = alike(gpt_oss_trace, made, (4, 8, 12, 16, 24))
    assert max(map(abs, errors.values())) <= CURVE_ERROR, errors
    assert hit_rate(gpt_oss_trace, 8) == pytest.approx(0.656, abs=5e-4)


def partner_share(trace: Trace, model: TraceModel) -> float:
    """Experts that are taken with their partner of the layer before."""
    found = []
    for layer in range(1, trace.layers):
        partners = np.array(model.layers[layer].partners)[trace.experts[:, layer]]
        before = trace.experts[:, layer - 1]
        found.append((partners[:, :, None] == before[:, None, :]).any(2).mean())
    return float(np.mean(found))


def test_popularity_reuse_and_layers_are_those_of_gpt_oss(
    gpt_oss_trace: Trace, recorded: TraceModel
) -> None:
    made = generate(recorded, 12, 0, 511, seed=2)
    assert overlap(made).mean() == pytest.approx(overlap(gpt_oss_trace).mean(), abs=0.02)
    theirs, ours = usage(gpt_oss_trace).ravel(), usage(made).ravel()
    assert np.corrcoef(theirs, ours)[0, 1] > 0.95
    share = partner_share(gpt_oss_trace, recorded)
    assert share > 0.3, "chance is 0.125"
    assert partner_share(made, recorded) == pytest.approx(share, abs=0.03)


def test_the_same_seed_gives_the_same_trace(learnt: TraceModel) -> None:
    first, again = (generate(learnt, 3, 4, 5, seed=7) for _ in range(2))
    other = generate(learnt, 3, 4, 5, seed=8)
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
    assert (first.experts != other.experts).any()


def test_fitting_is_deterministic() -> None:
    assert fit(small_trace()) == fit(small_trace())


def test_requests_and_phases(learnt: TraceModel, tmp_path: Path) -> None:
    made = generate(learnt, 3, 4, 5, seed=0)
    assert made.request.tolist() == [0] * 9 + [1] * 9 + [2] * 9
    assert made.phase.tolist() == ([PREFILL] * 4 + [DECODE] * 5) * 3
    assert made.position.tolist() == [*range(9)] * 3
    assert made.weights[0, 0].astype(float).sum() == pytest.approx(1, abs=2e-3)
    assert "seed 0" in made.info.source
    save_trace(made, tmp_path / "t")
    assert load_trace(tmp_path / "t").info == made.info


@pytest.mark.parametrize("shape", [(2, 4, 4), (9, 32, 4), (1, 1, 1), (12, 128, 8), (9, 8, 3)])
def test_any_shape(learnt: TraceModel, shape: tuple[int, int, int]) -> None:
    layers, experts, top_k = shape
    made = generate(learnt, 2, 5, 20, seed=0, layers=layers, experts=experts, top_k=top_k)
    assert made.experts.shape == (50, layers, top_k)
    assert made.info.experts_per_layer == experts
    assert made.weights[0, 0].astype(float).sum() == pytest.approx(1, abs=5e-3)


def test_reuse_beyond_chance_is_kept_in_a_larger_shape(recorded: TraceModel) -> None:
    made = generate(recorded, 4, 0, 200, seed=0, layers=12, experts=128, top_k=8)
    assert 0.3 < overlap(made).mean() < 0.45, "0.437 in the original, 0.0625 by chance"


def test_bytes_of_an_expert_stay_with_the_shape(embedded: Trace) -> None:
    sizes = tuple(range(100, 109))
    info = embedded.info.model_copy(update={"layer_bytes": sizes})
    model = fit(Trace(info, **embedded.arrays())).model_copy()
    assert generate(model, 1, 1, 1, seed=0).info.layer_bytes == sizes
    assert generate(model, 1, 1, 1, seed=0, experts=16).info.layer_bytes is None


@pytest.mark.parametrize(
    "trace",
    [
        one_layer([[0]], 1),
        one_layer([[0, 1]], 2, phase=PREFILL),
        one_layer([[0, 1], [1, 0], [3, 1]], 4),
        small_trace(),
    ],
    ids=["one of one", "all of two", "three tokens", "two requests"],
)
def test_small_traces(trace: Trace) -> None:
    model = fit(trace)
    made = generate(model, 2, 3, 3, seed=0)
    assert made.experts.shape == (12, trace.layers, trace.top_k)


def test_a_phase_that_is_missing_is_taken_for_the_other() -> None:
    again = np.random.default_rng(0).integers(0, 2, 400).cumsum() % 8  # the same one half the time
    for phase in (PREFILL, DECODE):
        model = fit(one_layer([[int(expert)] for expert in again], 8, phase=phase))
        assert model.layers[0].prefill == model.layers[0].decode
        assert overlap(generate(model, 1, 400, 0, seed=0))[0] == pytest.approx(0.5, abs=0.1)


def test_models_are_files(learnt: TraceModel, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    write_text(path, learnt.model_dump_json())
    assert load_model(path) == learnt


def changed(model: TraceModel, **change: object) -> str:
    layer = model.layers[3].model_copy(update=change)
    layers = (*model.layers[:3], layer, *model.layers[4:])
    return model.model_copy(update={"layers": layers}).model_dump_json()


def test_wrong_models_are_refused(learnt: TraceModel, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    text = learnt.model_dump_json()
    cases = {
        text[:-20]: "cannot be parsed",
        text.replace('"version":1', '"version":2'): "version is 2",
        text.replace("trace-model", "other"): "format is 'offsim-other'",
        changed(learnt, decode=(1.0,)): "decode of layer 3 is not",
        changed(learnt, partners=(8,) * 8): "a partner of layer 3 is no expert",
        changed(learnt, gain=0.0): r"layers\.3\.gain is 0",
        changed(learnt, popularity=(-1.0,) * 8): r"popularity\.0 is -1",
    }
    for broken, message in cases.items():
        path.write_text(broken)
        with pytest.raises(FormatError, match=message) as caught:
            load_model(path)
        assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        load_model(tmp_path / "none")


@pytest.mark.parametrize(
    ("size", "shape", "message"),
    [
        ((0, 1, 1), {}, "0 requests of 1"),
        ((1, 0, 0), {}, "has nothing in it"),
        ((1, -1, 3), {}, "has nothing in it"),
        ((1, 1, 1), {"top_k": 9}, "takes 9 of 8 experts"),
        ((1, 1, 1), {"top_k": 0}, "takes 0 of 8"),
        ((1, 1, 1), {"experts": 1}, "takes 2 of 1"),
        ((1, 1, 1), {"experts": 65537}, "2 of 65537"),
        ((1, 1, 1), {"layers": 0}, "0 layers"),
    ],
)
def test_what_cannot_be_generated(
    learnt: TraceModel, size: tuple[int, int, int], shape: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generate(learnt, *size, seed=0, **shape)


def test_progress_rises() -> None:
    told: list[float] = []
    fit(small_trace(), lambda _what, share: told.append(share))
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] < 1
