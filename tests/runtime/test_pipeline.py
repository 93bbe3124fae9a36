"""Who is served first, who is given up, and what is in a slot in the end."""

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from offsim.codec import codec_named
from offsim.codec.expert import ExpertBlob
from offsim.codec.pool import DecodePool
from offsim.errors import CodecError, RunError
from offsim.policy.transfer import Transfer
from offsim.record import Load
from offsim.runtime.devices import cpu as module
from offsim.runtime.link import Bytes, Link
from offsim.runtime.pipeline import Pipeline
from offsim.runtime.store import ExpertStore
from offsim.runtime.waiting import Job, Waiting

SOON_S = 10.0


class Held(Link):
    """A link that carries something only when it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may = threading.Semaphore(0), threading.Semaphore(0)

    def _hold(self) -> None:
        self.begun.release()
        assert self.may.acquire(timeout=SOON_S)

    def carry(
        self, parts: Sequence[Bytes], since: float = math.inf
    ) -> tuple[Sequence[Bytes], None]:
        self._hold()
        return super().carry(parts, since)

    def carry_chunk(
        self,
        parts: Sequence[Bytes],
        into: Sequence[Bytes],
        begin: int,
        end: int,
        since: float = math.inf,
    ) -> None:
        self._hold()
        super().carry_chunk(parts, into, begin, end, since)

    def wait_begun(self) -> None:
        assert self.begun.acquire(timeout=SOON_S)


class Bench:
    """A pipeline on a held link, and slots."""

    def __init__(self, store: ExpertStore, transfer: Transfer | None = None) -> None:
        self.store, self.link = store, Held()
        self.slots = torch.zeros(4, store.shape.values)
        self.pipeline = Pipeline(store, self.link, transfer)

    def ask(self, expert: int, slot: int | None = None, *, ahead: bool = False) -> Job:
        place = self.slots[expert if slot is None else slot]
        return self.pipeline.ask(0, expert, place, ahead=ahead)

    def weights(self, expert: int) -> torch.Tensor:
        blob = self.store.blobs[0][expert]
        return torch.cat([blob.decoded(matrix).view(-1).float() for matrix in range(3)])

    def close(self) -> None:
        self.link.may.release(100)
        self.pipeline.close()


@pytest.fixture
def store(tiny_model: PreTrainedModel) -> ExpertStore:
    return ExpertStore.of(tiny_model, codec_named("raw"), 0.0)


@pytest.fixture
def bench(store: ExpertStore) -> Iterator[Bench]:
    bench = Bench(store)
    yield bench
    bench.close()


@pytest.fixture
def chunked(store: ExpertStore) -> Iterator[Bench]:
    bench = Bench(store, Transfer(chunk_bytes=1000))
    yield bench
    bench.close()


def span(job: Job, stage: str) -> tuple[float, float]:
    (found,) = [s for s in job.load.spans if s.stage == stage]
    return found.start, found.end


def job_of(number: int, *, urgent: bool) -> Job:
    return Job(number, Load(0, number, 1, 0.0), torch.empty(0), ExpertBlob(()), urgent)


def test_urgent_jobs_come_first_and_of_equals_the_oldest() -> None:
    waiting = Waiting()
    jobs = [job_of(number, urgent=number in (2, 4)) for number in range(6)]
    for number in (0, 1, 3, 4, 2, 5):
        waiting.put(jobs[number])
    jobs[1].gone = True
    jobs[5].urgent = True
    waiting.put(None)
    served = [job.number for job in iter(waiting.get, None)]
    assert served == [2, 4, 5, 0, 3]


def test_those_that_are_all_gone_are_not_waited_for_and_a_closed_queue_takes_nothing() -> None:
    waiting = Waiting()
    jobs = [job_of(number, urgent=False) for number in range(3)]
    for job in jobs:
        waiting.put(job)
        job.gone = True
    waiting.put(None)
    assert waiting.get() is None
    waiting.put(job_of(3, urgent=True))
    waiting.close()
    waiting.put(job_of(4, urgent=True))
    waiting.put(None)
    assert waiting.get() is None


def test_a_raised_prefetch_goes_before_the_others(bench: Bench) -> None:
    first = bench.ask(0, ahead=True)
    bench.link.wait_begun()
    second, raised = bench.ask(1, ahead=True), bench.ask(2, ahead=True)
    demand = bench.ask(3)
    raised.urgent = True
    bench.link.may.release(4)
    assert [bench.pipeline.wait() for _ in range(2)] == [raised, demand]
    while not second.there:
        bench.pipeline.note_arrivals()
    order = sorted((first, second, raised, demand), key=lambda job: span(job, "link"))
    assert order == [first, raised, demand, second]
    assert torch.equal(bench.slots, torch.stack([bench.weights(expert) for expert in range(4)]))


def test_a_prefetch_that_was_dropped_before_it_began_is_not_carried(bench: Bench) -> None:
    bench.ask(0)
    bench.link.wait_begun()
    dropped = bench.ask(1, 3, ahead=True)
    dropped.gone = True
    new = bench.ask(2, 3)
    bench.link.may.release(3)
    assert [bench.pipeline.wait().load.expert for _ in range(2)] == [0, 2]
    bench.close()
    assert dropped.load.spans == []
    assert torch.equal(new.slot, bench.weights(2))


def test_a_prefetch_that_is_dropped_on_the_link_does_not_reach_its_slot(bench: Bench) -> None:
    dropped = bench.ask(1, 3, ahead=True)
    bench.link.wait_begun()
    dropped.gone = True
    new = bench.ask(2, 3)
    bench.link.may.release(2)
    assert bench.pipeline.wait() is new
    bench.close()
    assert [s.stage for s in dropped.load.spans] == ["link"]
    assert torch.equal(new.slot, bench.weights(2))


def test_whoever_takes_the_slot_of_one_that_is_being_written_is_written_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    plain = module.unpack
    victim = bench.store.blobs[0][1]

    def slow(blob: ExpertBlob, parts: list[Bytes], slot: torch.Tensor, *, decoded: bool) -> None:
        if blob is victim:
            writing.set()
            assert go_on.wait(SOON_S)
        plain(blob, parts, slot, decoded=decoded)

    monkeypatch.setattr(module, "unpack", slow)
    bench.link.may.release(2)
    dropped = bench.ask(1, 3, ahead=True)
    assert writing.wait(SOON_S)
    dropped.gone = True
    new = bench.ask(2, 3)
    while len(new.load.spans) < 1:
        pass
    assert bench.pipeline.arrived() is None
    go_on.set()
    assert bench.pipeline.wait() is new
    bench.close()
    assert span(dropped, "device decode") < span(new, "device decode")
    assert torch.equal(new.slot, bench.weights(2))


def test_a_demand_preempts_a_prefetch_between_chunks(chunked: Bench) -> None:
    prefetch = chunked.ask(0, ahead=True)
    chunked.link.wait_begun()
    demand = chunked.ask(1)
    chunked.link.may.release(100)
    assert chunked.pipeline.wait() is demand
    while not prefetch.there:
        chunked.pipeline.note_arrivals()
    assert prefetch.chunks == demand.chunks == -(-chunked.store.shape.bytes // 1000)
    (start, end), (first, last) = span(prefetch, "link"), span(demand, "link")
    assert start < first < last < end
    for job in (prefetch, demand):
        assert torch.equal(job.slot, chunked.weights(job.load.expert))


def test_one_that_is_dropped_ends_with_its_chunk(chunked: Bench) -> None:
    dropped = chunked.ask(0, ahead=True)
    chunked.link.wait_begun()
    dropped.gone = True
    chunked.link.may.release(100)
    new = chunked.ask(1, 0)
    assert chunked.pipeline.wait() is new
    assert dropped.chunks == 1
    assert [s.stage for s in dropped.load.spans] == ["link"]
    assert torch.equal(new.slot, chunked.weights(1))


def test_channels_carry_side_by_side(store: ExpertStore) -> None:
    bench = Bench(store, Transfer(channels=2))
    jobs = [bench.ask(expert) for expert in range(3)]
    for _ in range(2):
        bench.link.wait_begun()
    assert not bench.link.begun.acquire(timeout=0.05)
    bench.link.may.release(3)
    for _ in jobs:
        bench.pipeline.wait()
    bench.close()
    assert torch.equal(bench.slots[2], bench.weights(2))


def test_hosts_decode_side_by_side(
    tiny_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ExpertStore.of(tiny_model, codec_named("sz3"), 2.0**-7), Transfer(decoders=2))
    both = threading.Barrier(2)
    plain, pools = DecodePool.decode, []

    def at_once(pool: DecodePool, *job: Any, **how: Any) -> list[torch.Tensor]:
        pools.append(pool)
        both.wait(SOON_S)
        return plain(pool, *job, **how)

    monkeypatch.setattr(DecodePool, "decode", at_once)
    bench.link.may.release(2)
    for expert in range(2):
        bench.ask(expert)
    assert {bench.pipeline.wait().load.expert for _ in range(2)} == {0, 1}
    bench.close()
    assert len(set(pools)) == 2
    for expert in range(2):
        assert torch.equal(bench.slots[expert], bench.weights(expert))


def test_closing_forgets_what_has_not_begun(store: ExpertStore) -> None:
    bench = Bench(store, Transfer(chunk_bytes=1000))
    jobs = [bench.ask(expert, ahead=True) for expert in range(4)]
    bench.link.wait_begun()
    bench.close()
    assert sum(job.chunks for job in jobs) == 1


def test_a_failure_counts_unless_the_load_was_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise CodecError("the stream is cut")

    monkeypatch.setattr(module, "unpack", broken)
    bench.link.may.release(2)
    dropped = bench.ask(0, ahead=True)
    while dropped.error is None:
        pass
    dropped.gone = True
    bench.pipeline.note_arrivals()
    bench.ask(1, ahead=True)
    with pytest.raises(RunError, match="loading expert 1 of layer 0 failed: the stream is cut"):
        bench.pipeline.wait()
