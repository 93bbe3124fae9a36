from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from offsim.calibration.expert_sample import stratified
from offsim.calibration.expert_sizes import Sizes, measure_sizes, raw_sizes
from offsim.codec import codec_named
from offsim.codec.expert import encode_expert
from offsim.errors import InputError
from offsim.model.experts import ExpertShape
from tests.builders import codec_figures

from .test_expert_sample import SHAPE, Drawn

KEYS = [("cuszp", 2.0**-8), ("rtn-int4", 0.0)]


def sizes(count: int, out: Path | None = None, experts: Drawn | None = None) -> Sizes:
    """Those of the first key."""
    return measure_sizes(experts or Drawn(), "drawn", count, KEYS, out)[0]


def truth() -> np.ndarray:
    """[layers, experts, 3] bytes of each matrix under the first key."""
    experts, codec = Drawn(), codec_named(KEYS[0][0])
    return np.array(
        [
            [
                [
                    blob.nbytes
                    for blob in encode_expert(experts.matrices(s, e), codec, KEYS[0][1]).blobs
                ]
                for e in range(SHAPE.experts)
            ]
            for s in range(SHAPE.layers)
        ]
    )


def test_all_experts_are_exact() -> None:
    found = sizes(12)
    np.testing.assert_array_equal(found.matrix_bytes, truth())
    assert found.sampled is None
    assert 0 < found.largest_error <= 2**-8
    assert found.fallbacks == 0


def test_others_have_the_mean_of_their_layer() -> None:
    found, exact = sizes(7), truth()
    places = stratified(SHAPE, 7, 0)
    of_layer = Counter(layer for layer, _ in places)
    assert sorted(of_layer.values()) == [2, 2, 3]
    for layer in range(SHAPE.layers):
        own = [exact[place] for place in places if place[0] == layer]
        for expert in range(SHAPE.experts):
            expected = exact[layer, expert] if (layer, expert) in places else np.mean(own, 0)
            assert np.abs(found.matrix_bytes[layer, expert] - expected).max() <= 0.5
    sampled = found.sampled
    assert sampled is not None
    assert sampled.experts == 7
    assert sampled.ratio_low is not None
    assert sampled.ratio_high is not None
    ratio = 12 * SHAPE.bytes / exact.sum()
    assert sampled.ratio_low < ratio < sampled.ratio_high
    blobs = [exact[place].sum() for place in places]
    assert min(blobs) <= sampled.p10_bytes < sampled.p90_bytes <= max(blobs)


def test_a_layer_without_a_sample_has_the_mean_of_all() -> None:
    found, exact = sizes(2), truth()
    places = stratified(SHAPE, 2, 0)
    (without,) = {0, 1, 2} - {layer for layer, _ in places}
    mean = np.mean([exact[place] for place in places], 0)
    assert np.abs(found.matrix_bytes[without] - mean).max() <= 0.5


def test_one_expert_has_no_interval() -> None:
    sampled = sizes(1).sampled
    assert sampled is not None
    assert (sampled.experts, sampled.ratio_low, sampled.ratio_high) == (1, None, None)


def test_what_was_stopped_goes_on(tmp_path: Path) -> None:
    def stop(what: str, share: float) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_sizes(Drawn(), "drawn", 6, KEYS, tmp_path, stop)
    experts = Drawn()
    found = sizes(6, tmp_path, experts)
    assert len(experts.read) == 1 + 3, "one for the checksum of the design"
    np.testing.assert_array_equal(found.matrix_bytes, sizes(6).matrix_bytes)
    again = Drawn()
    sizes(9, tmp_path, again)
    assert len(again.read) == 1 + 3


def test_notes_of_others_are_refused(tmp_path: Path) -> None:
    sizes(1, tmp_path)
    with pytest.raises(InputError, match=r"with the codecs cuszp:0\.00390625, rtn-int4:0\.0, not"):
        measure_sizes(Drawn(), "drawn", 1, KEYS[:1], tmp_path)
    with pytest.raises(InputError, match="the crc32"):
        measure_sizes(Drawn(seed=5), "drawn", 1, KEYS, tmp_path)


def test_they_take_the_place_of_those_of_a_codec() -> None:
    figures = codec_figures("cuszp", 2**-8, decode_s=0.5, layers=2)
    for found in (sizes(7), sizes(12)):
        made = type(figures).model_validate(found.put_into(figures).model_dump())
        assert np.shape(made.matrix_bytes) == (3, 4, 3)
        assert made.ratio == pytest.approx(12 * SHAPE.bytes / np.sum(made.blob_bytes))
        assert made.label == ("MEASURED" if found.sampled is None else "ESTIMATED")
        assert (made.sampled, made.decode_s.value) == (found.sampled, 0.5)
        assert 0 < made.largest_error <= 2**-8


def test_raw_experts_are_as_they_are_stored() -> None:
    shape = ExpertShape(2, 3, 8, 4)
    made = raw_sizes(shape).put_into(codec_figures(layers=2, experts=3))
    assert made.blob_bytes == [[3 * 8 * 4 * 2] * 3] * 2
    assert (made.label, made.ratio, made.largest_error) == ("MEASURED", 1.0, 0.0)
    experts = Drawn()
    raw = encode_expert(experts.matrices(0, 0), codec_named("raw"))
    assert raw_sizes(SHAPE).matrix_bytes[0, 0].tolist() == [blob.nbytes for blob in raw.blobs]
