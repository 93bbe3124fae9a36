import threading
from typing import Literal

import pytest
import torch
from transformers import PreTrainedModel

from offsim.codec import codec_named
from offsim.errors import CodecError, InputError, RunError
from offsim.model.generate import greedy_tokens
from offsim.policy.cache import Decision
from offsim.policy.policy import Policy
from offsim.policy.registry import EVICTIONS
from offsim.record import metrics_of
from offsim.runtime import ExpertStore, run_offloaded
from offsim.runtime.arena import Arena
from offsim.simulate import simulate
from offsim.study.prepare import recorded, under
from tests.builders import calibration, codec_figures

PROMPTS = [[10, 40, 41, 42, 43], [10, 60, 61]]
COUNT = 6
STORAGES = [("raw", 0.0), ("cuszp", 2.0**-9), ("sz3", 2.0**-9)]


def offsim_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("offsim ")]


@pytest.mark.parametrize("slots", [0, 1, 3, 4])
def test_raw_offloading_writes_the_tokens_of_the_plain_model(
    tiny_model: PreTrainedModel, slots: int
) -> None:
    plain = [greedy_tokens(tiny_model, prompt, COUNT) for prompt in PROMPTS]
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    run = run_offloaded(tiny_model, store, Policy(slots=slots), PROMPTS, COUNT)
    assert run.tokens == plain
    assert offsim_threads() == []


@pytest.mark.parametrize(("codec", "bound"), STORAGES)
@pytest.mark.parametrize("slots", [0, 2])
def test_simulator_and_run_take_the_same_decisions(
    tiny_model: PreTrainedModel, codec: str, bound: float, slots: int
) -> None:
    store = ExpertStore.of(tiny_model, codec_named(codec), bound)
    policy = Policy(codec=codec, bound=bound, slots=slots)
    recording = recorded(tiny_model, "tiny", store, PROMPTS, COUNT)
    run = run_offloaded(tiny_model, store, policy, PROMPTS, COUNT, 1e8)
    simulated = simulate(recording.trace, policy, calibration(codec_figures(codec, bound)), 1e8)
    assert run.tokens == recording.tokens
    assert run.record.decisions() == simulated.decisions()
    assert [(s.request, s.phase) for s in run.record.steps] == [
        (s.request, s.phase) for s in simulated.steps
    ]


LIVE = [name for name, eviction in EVICTIONS.items() if not eviction.oracle]


@pytest.mark.parametrize(("scope", "extra"), [("layer", 0), ("global", 0), ("global", 1)])
@pytest.mark.parametrize("cache", LIVE)
def test_every_cache_decides_the_same_in_both(
    tiny_model: PreTrainedModel, cache: str, scope: Literal["layer", "global"], extra: int
) -> None:
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    policy = Policy(cache=cache, slots=2, extra=extra, scope=scope, seed=7)
    recording = recorded(tiny_model, "tiny", store, PROMPTS, COUNT)
    run = run_offloaded(tiny_model, store, policy, PROMPTS, COUNT, 1e8, profile=recording.trace)
    simulated = simulate(recording.trace, policy, calibration(), 1e8, recording.trace)
    assert run.tokens == recording.tokens
    assert run.record.decisions() == simulated.decisions()
    assert any(left for decision in run.record.decisions() for left in decision.evicted)


def test_an_oracle_cannot_run(tiny_model: PreTrainedModel) -> None:
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    with pytest.raises(InputError, match="belady looks into the future"):
        run_offloaded(tiny_model, store, Policy(cache="belady"), PROMPTS, COUNT)
    assert offsim_threads() == []


def test_experts_of_a_run_are_within_their_bound(tiny_model: PreTrainedModel) -> None:
    for codec, bound in STORAGES:
        assert ExpertStore.of(tiny_model, codec_named(codec), bound).largest_error <= bound


def test_a_lossy_model_is_a_copy(tiny_model: PreTrainedModel) -> None:
    before = {name: p.clone() for name, p in tiny_model.named_parameters()}
    changed = under(tiny_model, ExpertStore.of(tiny_model, codec_named("sz3"), 2.0**-7))
    for name, parameter in tiny_model.named_parameters():
        assert torch.equal(parameter, before[name])
    experts = [n for n in before if "experts" in n]
    assert experts
    for name, parameter in changed.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in experts)


def test_the_link_is_paced(tiny_model: PreTrainedModel) -> None:
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    pace = store.shape.bytes / 0.004
    metrics = metrics_of(
        run_offloaded(tiny_model, store, Policy(slots=0), PROMPTS[:1], 2, pace).record
    )
    transfers = metrics.lookups
    assert metrics.link_bytes == transfers * store.shape.bytes
    assert metrics.output_tokens / metrics.tokens_per_s >= transfers * 0.004


def test_a_failing_decode_ends_the_run_and_its_threads(
    tiny_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)

    def broken(*_: object, **__: object) -> None:
        raise CodecError("the stream is cut")

    monkeypatch.setattr("offsim.runtime.devices.cpu.unpack", broken)
    with pytest.raises(RunError, match=r"loading expert \d of layer 0 failed: the stream is cut"):
        run_offloaded(tiny_model, store, Policy(), PROMPTS, COUNT)
    assert offsim_threads() == []
    assert tiny_model.config._experts_implementation != "offsim"


def test_a_lost_load_is_noticed(
    tiny_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    monkeypatch.setattr("offsim.runtime.pipeline.PATIENCE_S", 0.05)
    monkeypatch.setattr("offsim.runtime.pipeline.Pipeline._passed", lambda *_: None)
    with pytest.raises(RunError, match="no expert arrived"):
        run_offloaded(tiny_model, store, Policy(), PROMPTS, COUNT)
    assert offsim_threads() == []


def test_the_arena_reuses_the_slots_of_victims(tiny_model: PreTrainedModel) -> None:
    store = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    arena = Arena(store.shape, slots=2 * store.shape.layers)
    first = arena.place(Decision(1, (), (0, 3), ((), ())))
    second = arena.place(Decision(1, (3,), (2, 1), (((1, 0),), ()), (1,)))
    assert second[0].data_ptr() == first[0].data_ptr()
    pointers = {slot.data_ptr() for slot in (*first, second[1])}
    assert len(pointers) == 3
    assert arena.weights(1, 2).gate_up.data_ptr() == first[0].data_ptr()
