"""Whatever happens to a file, an importer reads it or says in one sentence why not."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.errors import InputError
from offsim.trace.importers import IMPORTERS, Options, importer_named

from .files import ids
from .test_bigmoe import TEXT
from .test_cachelab import EVENTS, HEAD
from .test_megatron import steps
from .test_sglang import response

OPTIONS = Options(experts=8, prompt=1, layers=2, top_k=2)


def good(name: str, folder: Path) -> Path:
    """A small file of a format."""
    if name in ("vllm", "arrays"):
        np.savez(folder / "x.npz", experts=ids(3))
        return folder / "x.npz"
    records = {
        "sglang": [response(ids(4), 1, 4), response(ids(4), 1, 4)],
        "megatron": steps([2, 1])[0],
        "cachelab": [{**HEAD, "num_experts": 8}, *EVENTS],
        "bigmoe": [],
    }[name]
    lines = TEXT.replace("n_expert=4", "n_expert=8").split("\n")
    path = folder / "x.jsonl"
    path.write_text("\n".join([json.dumps(line) for line in records] or lines))
    return path


def complaint(name: str, path: Path) -> str | None:
    """What the importer says against a file."""
    try:
        importer_named(name).read(path, OPTIONS)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", IMPORTERS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_file(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = good(name, tmp_path_factory.mktemp("damage"))
    assert complaint(name, path) is None
    text = bytearray(path.read_bytes())
    places = st.integers(0, len(text) - 1)
    changes = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)
    for place, value in data.draw(changes):
        text[place] = value
    path.write_bytes(text[: data.draw(places) if data.draw(st.booleans()) else None])
    said = complaint(name, path)
    assert said is None or (str(path) in said and "\n" not in said)
