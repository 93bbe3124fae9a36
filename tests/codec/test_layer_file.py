from itertools import takewhile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offsim.codec import Blob, codec_named
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.codec.layer_file import (
    ALIGNMENT,
    PAGE,
    Expert,
    LayerFile,
    end_of,
    footer,
    layer_head,
    parts_of,
    record_of,
    recovered,
)
from offsim.errors import CodecError, FormatError

from .checks import assert_same_bits, weights_like

ABOUT = {"job": "a test", "layer": 3}
HEAD = layer_head(ABOUT)
SHAPES = ((5, 7), (5, 7), (7, 5))


def blobs(count: int = 3) -> list[ExpertBlob]:
    codecs = [codec_named(name) for name in ("cuszp", "raw", "lossless")]
    return [
        encode_expert(
            [weights_like(*shape, seed=10 * expert + at) for at, shape in enumerate(SHAPES)],
            codecs[expert % len(codecs)],
            1e-3,
        )
        for expert in range(count)
    ]


BLOBS = blobs()


def whole() -> tuple[bytes, list[Expert]]:
    """The bytes of a finished file, and where its experts are."""
    data, places = HEAD, []
    for blob in BLOBS:
        places.append(parts_of([part.header for part in blob.blobs], len(data)))
        data += b"".join(bytes(part) for part in record_of(blob))
        assert end_of(places[-1]) == len(data)
    return data + footer(places, len(data)), places


DATA, PLACES = whole()
ENDS = [len(HEAD), *map(end_of, PLACES)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "layer-003.blobs"
    path.write_bytes(DATA)
    return path


def checked(path: Path) -> LayerFile:
    file = LayerFile(path)
    file.check_places()
    for expert in range(len(BLOBS)):
        file.check_record(expert)
    return file


def test_experts_come_back_as_they_were(path: Path) -> None:
    file = checked(path)
    assert file.about == ABOUT
    assert file.nbytes == len(DATA)
    for expert, before in enumerate(BLOBS):
        after = file.blob(expert)
        assert after.nbytes == before.nbytes
        assert after.stored_bytes == before.stored_bytes
        for matrix, (one, other) in enumerate(zip(before.blobs, after.blobs, strict=True)):
            assert one.header == other.header
            assert bytes(one.payload) == bytes(other.payload)
            assert_same_bits(before.decoded(matrix), after.decoded(matrix))


def test_payloads_are_aligned_and_a_record_is_three_containers(path: Path) -> None:
    for expert, before in zip(LayerFile(path).experts, BLOBS, strict=True):
        assert end_of(expert) % PAGE == 0
        for part, blob in zip(expert, before.blobs, strict=True):
            assert part.start % ALIGNMENT == 0
            start = DATA.rindex(b"OFSB", 0, part.start)
            container = DATA[start : part.start + part.header.payload_bytes]
            assert Blob.from_bytes(container).to_bytes() == blob.to_bytes()


def test_the_checksum_is_looked_at_before_a_payload_is_handed_out(path: Path) -> None:
    data = bytearray(DATA)
    data[PLACES[1][2].start] ^= 1
    path.write_bytes(data)
    expert = LayerFile(path).blob(1)
    assert expert.nbytes == BLOBS[1].nbytes  # known without a look at the payload
    assert bytes(expert.blobs[0].payload) == bytes(BLOBS[1].blobs[0].payload)
    with pytest.raises(CodecError, match="expert 1, matrix 2: the payload is damaged"):
        expert.decoded(2)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 8 * len(DATA) - 1))
def test_a_flipped_bit_anywhere_is_found(
    tmp_path_factory: pytest.TempPathFactory, bit: int
) -> None:
    data = bytearray(DATA)
    data[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.getbasetemp() / "flipped.blobs"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"flipped\.blobs"):
        checked(path)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(DATA) - 1))
def test_a_cut_file_is_refused(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.blobs"
    path.write_bytes(DATA[:size])
    with pytest.raises(FormatError, match=r"cut\.blobs"):
        LayerFile(path)


def test_bytes_between_records_and_index_are_found(path: Path) -> None:
    path.write_bytes(DATA[: ENDS[-1]] + bytes(PAGE) + footer(PLACES, ENDS[-1] + PAGE))
    with pytest.raises(FormatError, match="between its records and its index"):
        LayerFile(path).check_places()


def test_records_that_were_exchanged_are_found(path: Path) -> None:
    gate, up, down = PLACES[1]  # both are raw and of one size
    moved = [PLACES[0], (up.model_copy(), gate.model_copy(), down), PLACES[2]]
    path.write_bytes(DATA[: ENDS[-1]] + footer(moved, ENDS[-1]))
    with pytest.raises(FormatError, match="a gap"):
        LayerFile(path).check_places()


@settings(max_examples=200, deadline=None)
@given(size=st.integers(0, ENDS[-1]), tail=st.binary(max_size=80))
@example(size=ENDS[1] - 1, tail=bytes(2))
def test_what_was_cut_anywhere_is_recovered_up_to_its_last_whole_record(
    tmp_path_factory: pytest.TempPathFactory, size: int, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "partial.blobs"
    left = DATA[:size] + tail
    path.write_bytes(left)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(DATA, left, strict=False))
    sound = len(list(same))  # a tail of zeros may complete a record
    assert recovered(path, HEAD, len(BLOBS)) == PLACES[: sum(end <= sound for end in ENDS[1:])]


@settings(max_examples=200, deadline=None)
@given(st.integers(8 * len(HEAD), 8 * ENDS[-1] - 1))
def test_a_damaged_record_and_those_behind_it_are_not_recovered(
    tmp_path_factory: pytest.TempPathFactory, bit: int
) -> None:
    data = bytearray(DATA)
    data[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.getbasetemp() / "damaged.blobs"
    path.write_bytes(data)
    assert recovered(path, HEAD, len(BLOBS)) == PLACES[: sum(end <= bit // 8 for end in ENDS[1:])]


def test_a_hole_where_a_process_was_killed_is_not_recovered(path: Path) -> None:
    path.write_bytes(DATA[: ENDS[1]] + bytes(ENDS[2] - ENDS[1]) + DATA[ENDS[2] : ENDS[3]])
    assert recovered(path, HEAD, len(BLOBS)) == PLACES[:1]


def test_nothing_is_recovered_of_another_header(path: Path) -> None:
    assert recovered(path, layer_head({**ABOUT, "layer": 4}), len(BLOBS)) == []


def test_the_index_does_not_depend_on_the_order_of_options() -> None:
    blob = encode_expert([torch.ones(4, 4).bfloat16()] * 3, codec_named("raw"), 0.0)
    headers = [part.header for part in blob.blobs]
    ways = [{"a": "1", "b": "2"}, {"b": "2", "a": "1"}]
    first, second = ([h.model_copy(update={"options": way}) for h in headers] for way in ways)
    assert footer([parts_of(first, 64)], 512) == footer([parts_of(second, 64)], 512)


def resident(path: Path) -> int:
    """Bytes of the maps of a file that are in the memory of this process."""
    total, own = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            own = line.endswith(str(path))
        elif own and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


def test_what_was_read_is_let_go_of_and_there_again(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps").exists():
        pytest.skip("needs /proc/self/smaps")
    path = tmp_path / "layer-003.blobs"
    path.write_bytes(DATA)
    file = LayerFile(path)
    for expert in range(len(PLACES)):
        file.check_record(expert)
    assert resident(path) >= PAGE
    file.let_go()
    assert resident(path) == 0
    for expert in range(len(PLACES)):
        file.check_record(expert)
    assert resident(path) >= PAGE
