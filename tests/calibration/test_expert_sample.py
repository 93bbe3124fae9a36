from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from offsim.calibration.expert_notes import Row
from offsim.calibration.expert_sample import Asked, measure_sample, sample_rows, stratified
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import FormatError, InputError
from offsim.model.experts import ExpertShape

SHAPE = ExpertShape(3, 4, 96, 64)


@dataclass
class Drawn:
    """Random experts that note which were read; fulfils `Experts`."""

    shape: ExpertShape = SHAPE
    seed: int = 0
    read: list[tuple[int, int]] = field(default_factory=list)

    def identity(self, layer: int, expert: int) -> Hashable:
        return layer, expert

    def matrices(self, layer: int, expert: int) -> Sequence[torch.Tensor]:
        self.read.append((layer, expert))
        seed = self.seed + self.shape.experts * layer + expert
        generator, shape = torch.Generator().manual_seed(seed), self.shape
        sizes = [(shape.width, shape.hidden)] * 2 + [(shape.hidden, shape.width)]
        return [(torch.randn(*size, generator=generator) * 0.02).bfloat16() for size in sizes]


def asked(seed: int = 0, bound: float = 2**-8) -> Asked:
    return Asked([codec_named("raw"), codec_named("cuszp")], [Bound(bound), Bound(0.5)], 1, seed)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 12, 50])
def test_layers_have_the_same_number_or_one_more(count: int) -> None:
    places = stratified(SHAPE, count, 3)
    assert len(places) == len(set(places)) == min(count, 12)
    assert places == sorted(places)
    assert all(layer < 3 and expert < 4 for layer, expert in places)
    of_layer = Counter(layer for layer, _ in places)
    each = [of_layer[layer] for layer in range(3)]
    assert max(each) - min(each) <= 1


def test_a_larger_sample_has_the_smaller_one() -> None:
    samples = [set(stratified(SHAPE, count, 1)) for count in range(1, 13)]
    assert all(small < large for small, large in pairwise(samples))


def test_seeds_draw_all_experts_alike() -> None:
    wide = ExpertShape(2, 8, 4, 4)
    drawn = Counter(place for seed in range(800) for place in stratified(wide, 4, seed))
    assert len(drawn) == 16
    assert all(150 < count < 250 for count in drawn.values())  # 200 expected, 12 its spread


def test_a_sample_of_none_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1 expert, not 0"):
        stratified(SHAPE, 0, 0)


def test_each_expert_has_each_codec_and_bound() -> None:
    experts = Drawn()
    rows = measure_sample(experts, "drawn", 5, asked())
    assert [(row.layer, row.expert) for row in rows] == stratified(SHAPE, 5, 0)
    for row in rows:
        raw, fine, coarse = row.points
        assert (raw.codec, raw.asked, raw.ideal_bits, raw.bound) == ("raw", "", None, 0)
        assert raw.blob_bytes == raw.stored_bytes == SHAPE.bytes
        assert (raw.largest_error, raw.fallbacks) == (0, 0)
        assert (fine.codec, fine.asked, fine.bound) == ("cuszp", str(2**-8), 2**-8)
        assert 0 < fine.rmse < fine.largest_error <= 2**-8
        assert fine.blob_bytes < raw.blob_bytes
        assert fine.ideal_bits is not None
        assert 0 < fine.ideal_bits < 16
        assert coarse.bound == 0.5
        assert coarse.blob_bytes < fine.blob_bytes
        assert min(point.copy_s * point.encode_s * point.decode_s for point in row.points) > 0


def test_progress_is_told_and_reaches_no_further_than_all() -> None:
    told: list[tuple[str, float]] = []
    measure_sample(Drawn(), "drawn", 4, asked(), progress=lambda *both: told.append(both))
    assert len(told) == 4
    assert [share for _, share in told] == [0, 0.25, 0.5, 0.75]
    assert "of MoE layer" in told[0][0]


def test_what_is_noted_is_not_measured_again(tmp_path: Path) -> None:
    first = measure_sample(Drawn(), "drawn", 3, asked(), tmp_path)
    experts = Drawn()
    again = measure_sample(experts, "drawn", 7, asked(), tmp_path)
    assert [row for row in again if row in first] == first  # with their times
    assert len(experts.read) == 1 + 4, "one for the checksum of the design"
    assert measure_sample(Drawn(), "drawn", 3, asked(), tmp_path) == first


def test_a_measurement_that_is_stopped_goes_on(tmp_path: Path) -> None:
    def stop(what: str, share: float) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_sample(Drawn(), "drawn", 6, asked(), tmp_path, stop)
    experts = Drawn()
    rows = measure_sample(experts, "drawn", 6, asked(), tmp_path)
    assert len(experts.read) == 1 + 3
    assert all(isinstance(row, Row) for row in rows)


@pytest.mark.parametrize(
    ("experts", "name", "other", "says"),
    [
        (Drawn(), "other", asked(), "the weights drawn, not other"),
        (Drawn(seed=5), "drawn", asked(), "the crc32"),
        (Drawn(), "drawn", asked(seed=1), "the crc32|the seed 0, not 1"),
        (Drawn(), "drawn", asked(bound=0.25), "the bounds 0.00390625, 0.5, not 0.25, 0.5"),
        (Drawn(ExpertShape(2, 4, 96, 64)), "drawn", asked(), "the layers 3, not 2"),
    ],
)
def test_rows_of_another_design_are_refused(
    tmp_path: Path, experts: Drawn, name: str, other: Asked, says: str
) -> None:
    measure_sample(Drawn(), "drawn", 1, asked(), tmp_path)
    with pytest.raises(InputError, match=says):
        measure_sample(experts, name, 1, other, tmp_path)


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    measure_sample(Drawn(), "drawn", 12, asked(), tmp_path)
    path = tmp_path / "experts" / "layer-0001.jsonl"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(FormatError, match=r"layer-0001\.jsonl: line 4: .*; remove the file"):
        measure_sample(Drawn(), "drawn", 12, asked(), tmp_path)


def test_rows_come_evenly_from_layers_experts_and_matrices() -> None:
    experts = Drawn()
    rows = sample_rows(experts, 24 * 96)
    assert rows.shape == (24, 96)
    assert rows.dtype == torch.bfloat16
    assert len(set(experts.read)) == 12
    source = Drawn()
    found = {tuple(row.tolist()) for row in rows}
    assert len(found) == 24
    for layer, expert in experts.read:
        gate, up, _ = source.matrices(layer, expert)
        for matrix in (gate, up):
            own = {tuple(row.tolist()) for row in matrix}
            assert len(own & found) == 1


def test_fewer_rows_where_there_are_fewer() -> None:
    assert sample_rows(Drawn(), 1 << 30).shape == (12 * 2 * 64, 96)
    assert sample_rows(Drawn(), 1).shape == (1, 96)


def test_of_many_experts_few_are_read() -> None:
    experts = Drawn(ExpertShape(30, 40, 24, 16))
    assert sample_rows(experts, 24 * 1000).shape[1] == 24
    assert len(experts.read) <= 32
    assert len({layer for layer, _ in experts.read}) == 30
