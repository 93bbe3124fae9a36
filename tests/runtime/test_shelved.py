import tracemalloc
from itertools import chain
from pathlib import Path

import pytest
import torch
from transformers import Qwen3MoeForCausalLM

from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.codec.folder import ExpertFolder
from offsim.errors import FormatError, OffsimError
from offsim.policy.bounds import Bounds, Rule
from offsim.runtime.run import run_offloaded
from offsim.runtime.shelved import shelved_store
from offsim.runtime.store import ExpertStore
from offsim.study.compress import compress
from tests.study.checkpoints import mixtral_like

PROMPTS = [[1, 2, 3, 4, 5, 6, 7, 8]]
TABLE = Bounds(default=Bound(0.01), rules=(Rule(bound=Bound(0.25, "sigma"), layers=(1,)),))
EACH_BOUND = pytest.mark.parametrize(
    ("codec", "bound"),
    [("raw", 0.0), ("cuszp", 0.01), ("sz3", 0.01), ("cuszp", TABLE)],
    ids=["raw", "cuszp", "sz3", "table"],
)


@pytest.fixture
def checkpoint(tiny_model: Qwen3MoeForCausalLM, tmp_path: Path) -> Path:
    tiny_model.to(torch.bfloat16).save_pretrained(tmp_path / "checkpoint")
    tiny_model.float()
    return tmp_path / "checkpoint"


def shelf(checkpoint: Path, codec: str, bound: float | Bounds) -> Path:
    out = checkpoint.with_name("out")
    if isinstance(bound, float):
        bounds = Bounds(default=Bound(bound)) if bound else None
    else:
        bounds = bound
    compress(checkpoint, out, codec, bounds, 1)
    return out


@EACH_BOUND
def test_it_is_the_store_that_holds_them_in_memory(
    tiny_model: Qwen3MoeForCausalLM, checkpoint: Path, codec: str, bound: float | Bounds
) -> None:
    store = shelved_store(ExpertFolder(shelf(checkpoint, codec, bound)))
    held = ExpertStore.of(tiny_model, codec_named(codec), bound)
    assert store.shape == held.shape
    assert (store.codec, store.bound, store.bounds) == (held.codec, held.bound, held.bounds)
    assert store.matrix_bytes == held.matrix_bytes
    assert store.ratio == held.ratio
    assert store.largest_error >= held.largest_error
    assert store.policy() == held.policy()
    for row, other in zip(store.blobs, held.blobs, strict=True):
        for blob, one in zip(row, other, strict=True):
            parts = zip(blob.payloads(), one.payloads(), strict=True)
            assert all(a.tobytes() == b.tobytes() for a, b in parts)


@EACH_BOUND
def test_a_run_from_a_folder_computes_the_same(
    tiny_model: Qwen3MoeForCausalLM, checkpoint: Path, codec: str, bound: float | Bounds
) -> None:
    store = shelved_store(ExpertFolder(shelf(checkpoint, codec, bound)))
    held = ExpertStore.of(tiny_model, codec_named(codec), bound)
    policy = store.policy(slots=2)
    runs = [run_offloaded(tiny_model, one, policy, PROMPTS, 4) for one in (store, held)]
    assert runs[0].tokens == runs[1].tokens


def test_payloads_are_mapped_and_not_held(tmp_path: Path) -> None:
    checkpoint = mixtral_like(tmp_path / "checkpoint", 2, 4, 512, 512)
    out = shelf(checkpoint, "raw", 0.0)
    tracemalloc.start()
    try:
        store = shelved_store(ExpertFolder(out))
        sums = [sum(payload.sum() for payload in one.payloads()) for one in chain(*store.blobs)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(set(sums)) == 8
    assert store.nbytes == 8 * 3 * 512 * 512 * 2
    assert peak < store.nbytes / 20


def test_a_damaged_payload_is_not_decoded(checkpoint: Path) -> None:
    out = shelf(checkpoint, "cuszp", 0.01)
    place = shelved_store(ExpertFolder(out)).blobs[0][0]
    path = out / "layer-000.blobs"
    data = bytearray(path.read_bytes())
    data[data.index(bytes(place.blobs[0].payload))] ^= 1
    path.write_bytes(data)
    with pytest.raises(OffsimError, match="the payload is damaged"):
        shelved_store(ExpertFolder(out)).blobs[0][0].decoded(0)


def test_an_unfinished_folder_is_refused(checkpoint: Path) -> None:
    with pytest.raises(FormatError, match=r"no index\.json"):
        shelved_store(ExpertFolder(checkpoint))
