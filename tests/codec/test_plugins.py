"""Codecs of other packages, by the example of docs/codecs.md, installed as pip would."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from offsim.codec import Blob, codec_named, decode, encode
from offsim.codec.registry import CODECS, codec_names
from offsim.errors import CodecError, InputError

from .checks import DTYPES, assert_bound_kept, weights_like

DOCS = Path(__file__).parents[2] / "docs" / "codecs.md"
Install = Callable[[str, str, str], None]


def example() -> str:
    return DOCS.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a module and an entry point for it on the path."""

    def put(name: str, target: str, text: str) -> None:
        module = target.partition(":")[0]
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[offsim.codecs]\n{name} = {target}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    return put


def test_the_example_is_short() -> None:
    assert len(example().splitlines()) <= 40


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_example_works_as_it_stands(install: Install, dtype: torch.dtype) -> None:
    install("uniform", "offsim_uniform:Uniform", example())
    assert codec_names() == [*CODECS, "uniform"]
    codec = codec_named("uniform")
    for bound in (1e-3, 2.0**-7, 0.3):
        blob = assert_bound_kept(weights_like(40, 31, dtype=dtype), codec, bound)
        assert blob.header.codec == "uniform"
    fine = assert_bound_kept(weights_like(40, 31, dtype=dtype), codec, 1e-7)
    assert fine.header.codec == "raw"


def test_its_blobs_are_refused_where_it_is_not_installed(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("uniform", "offsim_uniform:Uniform", example())
    data = encode(weights_like(8), codec_named("uniform"), 1e-3).to_bytes()
    monkeypatch.setattr("offsim.codec.registry.entry_points", lambda group: [])
    with pytest.raises(CodecError, match="no codec is called 'uniform'"):
        decode(Blob.from_bytes(data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise RuntimeError('broken')", "does not load: broken"),
        ("Uniform = 3", "is not an offsim codec"),
        ("class Uniform: ...", "is not an offsim codec"),
        ("from offsim.codec.raw import Raw as Uniform", "with the name 'uniform'"),
    ],
)
def test_what_is_not_a_codec_is_refused(install: Install, text: str, message: str) -> None:
    install("uniform", "offsim_uniform:Uniform", text)
    with pytest.raises(InputError, match=message):
        codec_named("uniform")


def test_a_name_of_offsim_stays_with_offsim(install: Install) -> None:
    install("raw", "offsim_uniform:Uniform", example())
    assert type(codec_named("raw")) is CODECS["raw"]
    assert codec_names().count("raw") == 1
