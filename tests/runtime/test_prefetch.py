"""The real run loads ahead, and decides as its simulation does."""

import threading
from dataclasses import dataclass
from typing import Literal

import pytest
from transformers import PreTrainedModel

from offsim.calibration.schema import Calibration
from offsim.codec import codec_named
from offsim.errors import InputError
from offsim.model.generate import greedy_tokens
from offsim.policy.policy import Policy
from offsim.policy.transfer import Transfer
from offsim.record import Load, metrics_of
from offsim.runtime import ExpertStore, Run, run_offloaded
from offsim.runtime.arena import Arena
from offsim.runtime.gates import Gates
from offsim.simulate import simulate
from offsim.study.prepare import Recorded, recorded
from tests.builders import calibration, codec_figures

PROMPTS = [[10, 40, 41, 42, 43], [10, 60, 61]]
COUNT = 6
DISTANCE = 2
LIVE = ["gate", "last-token", "transition", "popularity"]
FAST = 1e8
LOAD_S = 0.004
"""What an expert takes on the slow link: many times longer than a layer computes."""


@dataclass(frozen=True)
class Made:
    model: PreTrainedModel
    store: ExpertStore
    recording: Recorded

    @property
    def calibration(self) -> Calibration:
        """One that has the bytes of the store."""
        store, shape = self.store, self.store.shape
        sizes = [[blob.nbytes for blob in row] for row in store.blobs]
        figures = codec_figures(str(store.codec), store.bound)
        made = calibration(figures.model_copy(update={"blob_bytes": sizes}))
        facts = made.model.model_copy(update={"hidden": shape.hidden, "width": shape.width})
        return made.model_copy(update={"model": facts})

    def run(self, policy: Policy, pace: float = FAST) -> Run:
        profile = self.recording.trace
        return run_offloaded(self.model, self.store, policy, PROMPTS, COUNT, pace, profile=profile)

    def check(self, policy: Policy, pace: float = FAST) -> Run:
        """Run and simulate it, and hold both against each other."""
        run = self.run(policy, pace)
        trace = self.recording.trace
        simulated = simulate(trace, policy, self.calibration, pace, trace)
        assert run.tokens == self.recording.tokens
        assert run.record.decisions() == simulated.decisions()
        measured, predicted = metrics_of(run.record), metrics_of(simulated)
        for name in ("lookups", "link_bytes", "prefetch_bytes", "wasted_bytes"):
            assert getattr(measured, name) == getattr(predicted, name), name
        loads = [load for step in run.record.steps for load in step.loads]
        expected = [load for step in simulated.steps for load in step.loads]
        assert list(map(facts_of, loads)) == list(map(facts_of, expected))
        assert [t.name for t in threading.enumerate() if t.name.startswith("offsim ")] == []
        return run


def facts_of(load: Load) -> tuple[int, int, int, bool, bool]:
    return load.layer, load.expert, load.link_bytes, load.ahead, load.used


def made_of(model: PreTrainedModel, codec: str, bound: float) -> Made:
    store = ExpertStore.of(model, codec_named(codec), bound)
    return Made(model, store, recorded(model, "tiny", store, PROMPTS, COUNT, DISTANCE))


@pytest.fixture(scope="module")
def raw(_tiny_model: PreTrainedModel) -> Made:
    return made_of(_tiny_model, "raw", 0.0)


@pytest.mark.parametrize("budget", [None, 1, 3])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("cache", ["lru", "lfu", "random", "pinned"])
@pytest.mark.parametrize("prefetch", LIVE)
def test_run_and_simulation_prefetch_the_same(
    raw: Made, prefetch: str, cache: str, scope: Literal["layer", "global"], budget: int | None
) -> None:
    policy = Policy(
        cache=cache,
        slots=2,
        scope=scope,
        seed=7,
        prefetch=prefetch,
        distance=DISTANCE,
        prefetch_bytes=None if budget is None else budget * raw.store.shape.bytes,
    )
    run = raw.check(policy)
    assert run.tokens == [greedy_tokens(raw.model, prompt, COUNT) for prompt in PROMPTS]
    assert any(decision.fetched for decision in run.record.decisions())


@pytest.mark.parametrize("prefetch", LIVE)
@pytest.mark.parametrize(("codec", "bound"), [("cuszp", 2.0**-5), ("sz3", 2.0**-5)])
def test_the_budget_counts_what_crosses_the_link(
    tiny_model: PreTrainedModel, codec: str, bound: float, prefetch: str
) -> None:
    made = made_of(tiny_model, codec, bound)
    sizes = sorted(blob.nbytes for row in made.store.blobs for blob in row)
    if codec == "cuszp":
        assert sizes[0] < sizes[-1]
    one = made.store.link_bytes(1, 0)
    for budget in (one, 2 * one, 2 * one + 50):
        policy = Policy(codec=codec, bound=bound, slots=2, prefetch=prefetch, prefetch_bytes=budget)
        assert any(decision.fetched for decision in made.check(policy).record.decisions())


@pytest.mark.parametrize(
    "transfer",
    [
        Transfer(),
        Transfer(chunk_bytes=1000),
        Transfer(channels=2, decoders=2),
        Transfer(chunk_bytes=2048, channels=3),
    ],
    ids=str,
)
@pytest.mark.parametrize("prefetch", ["none", "last-token"])
def test_a_slow_link_changes_no_decision_and_no_token(
    raw: Made, prefetch: str, transfer: Transfer
) -> None:
    policy = Policy(slots=2, prefetch=prefetch, distance=DISTANCE, transfer=transfer)
    # Slow enough that a machine which is busy with other things drops prefetches too.
    run = raw.check(policy, raw.store.shape.bytes / (4 * LOAD_S))
    loads = [load for step in run.record.steps for load in step.loads]
    assert all(load.spans[-1].stage == "device decode" for load in loads if load.used)
    if prefetch == "none":
        assert metrics_of(run.record).late_rate == 0
        assert not any(load.ahead for load in loads)
    elif transfer == Transfer():
        assert metrics_of(run.record).late_rate > 0
        dropped = [
            load for load in loads if not any(s.stage == "device decode" for s in load.spans)
        ]
        assert dropped
        assert all(load.ahead and not load.used for load in dropped)


def test_each_wait_is_for_a_load_that_was_asked_for(raw: Made) -> None:
    policy = Policy(slots=2, prefetch="last-token", distance=DISTANCE)
    record = raw.check(policy, raw.store.shape.bytes / LOAD_S).record
    asked = {id(load) for step in record.steps for load in step.loads}
    waits = [wait for step in record.steps for wait in step.waits]
    assert waits
    assert {id(wait.load) for wait in waits} <= asked
    assert any(wait.load.ahead for wait in waits)
    assert all(wait.load.used and wait.load.spans[-1].end <= wait.end for wait in waits)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_slots_follow_the_decision_log(raw: Made, scope: Literal["layer", "global"]) -> None:
    extra = 1 if scope == "global" else 0
    policy = Policy(slots=2, extra=extra, scope=scope, prefetch="transition", distance=DISTANCE)
    slots = 2 * raw.store.shape.layers + extra
    arena = Arena(raw.store.shape, slots)
    kept = {slot.data_ptr() for slot in arena.memory[:slots]}
    resident: dict[tuple[int, int], int] = {}
    for decision in raw.run(policy).record.decisions():
        assert {(decision.layer, expert) for expert in decision.hits} <= set(resident)
        slots = arena.place(decision)
        pairs = zip(decision.misses, decision.evicted, slots, strict=True)
        for expert, left, slot in pairs:
            for key in left:
                del resident[key]
            assert (slot.data_ptr() in kept) == (expert not in decision.staged)
            if expert not in decision.staged:
                resident[decision.layer, expert] = slot.data_ptr()
        ahead = zip(decision.fetched, decision.displaced, arena.place_ahead(decision), strict=True)
        for key, left, slot in ahead:
            for gone in left:
                del resident[gone]
            resident[key] = slot.data_ptr()
        assert len(set(resident.values())) == len(resident)
        assert set(resident.values()) <= kept
        for key, place in resident.items():
            assert arena.weights(*key).gate_up.data_ptr() == place


@pytest.mark.parametrize("prefetch", ["oracle", "noisy-oracle"])
def test_an_oracle_cannot_prefetch_for_real(raw: Made, prefetch: str) -> None:
    with pytest.raises(InputError, match=f"{prefetch} looks into the future: it needs a trace"):
        raw.run(Policy(prefetch=prefetch))


def test_what_only_a_simulation_can_do_is_refused(raw: Made) -> None:
    policy = Policy(transfer=Transfer(chunk_bytes=1000, pipelined=True))
    with pytest.raises(InputError, match="pipelined transfers can only be simulated"):
        raw.run(policy)
    with pytest.raises(InputError, match="popularity needs a profile"):
        run_offloaded(raw.model, raw.store, Policy(prefetch="popularity"), PROMPTS, COUNT)


def test_gates_are_asked_only_as_far_as_wanted(raw: Made) -> None:
    import torch

    hidden = torch.randn(3, raw.store.shape.hidden)
    router = raw.model.model.layers[0].mlp.gate
    with torch.inference_mode():
        own = router(hidden)[2]
        assert Gates(raw.model, 0).ahead(0, hidden, own) == []
        gates = Gates(raw.model, 1)
        next_ids = raw.model.model.layers[1].mlp.gate(hidden)[2]
        assert gates.ahead(0, hidden, own) == [next_ids.flatten().tolist()]
        with pytest.raises(InputError, match="layer 1 cannot be asked ahead: it does not choose"):
            gates.ahead(1, hidden, own + 1)
