from pathlib import Path

import pytest

from offsim.codec.bounds import Bound
from offsim.errors import FormatError, InputError
from offsim.files import write_yaml
from offsim.policy.bounds import Bounds, Rule
from offsim.policy.stored import read_policy

HEAD = "format: offsim-policy\nversion: 1\n"
TABLE = Bounds(default=Bound(0.001), rules=(Rule(bound=Bound(0.25, "sigma"), layers=(1,)),))


def file(folder: Path, text: str, head: str = HEAD) -> Path:
    path = folder / "policy.yaml"
    path.write_text(head + text)
    return path


@pytest.mark.parametrize(
    ("text", "codec", "bounds"),
    [
        ("codec: lossless", "lossless", None),
        ("codec: cuszp:mode=plain\nbound: 0.001", "cuszp:mode=plain", Bounds(default=Bound(0.001))),
        ("codec: sz3\nbound: sigma:0.25", "sz3", Bounds(default=Bound(0.25, "sigma"))),
        ("codec: sz3\nbounds: {default: 0.5}", "sz3", Bounds(default=Bound(0.5))),
    ],
)
def test_codec_and_bounds(tmp_path: Path, text: str, codec: str, bounds: Bounds | None) -> None:
    assert read_policy(file(tmp_path, text)) == (codec, bounds)


def test_a_table_beside_the_file_or_in_it(tmp_path: Path) -> None:
    write_yaml(tmp_path / "bounds.yaml", TABLE)
    assert read_policy(file(tmp_path, "codec: cuszp\nbounds: bounds.yaml")) == ("cuszp", TABLE)
    inside = (tmp_path / "bounds.yaml").read_text().replace("\n", "\n  ")
    assert read_policy(file(tmp_path, f"codec: cuszp\nbounds:\n  {inside}")) == ("cuszp", TABLE)


@pytest.mark.parametrize(
    ("text", "head", "says"),
    [
        ("codec: raw", "", "format is .*Field required"),
        ("codec: raw", "format: offsim-policy\nversion: 2\n", "version is 2"),
        ("codec: raw", "format: offsim-bounds\nversion: 1\n", "format is 'offsim-bounds'"),
        ("bound: 1", HEAD, "codec is .*Field required"),
        ("codec: sz3\nbound: -1", HEAD, "bound is -1: .*a positive number"),
        ("codec: sz3\nbound: 1\nslots: 4", HEAD, "slots is 4"),
        ("codec: sz3\nbound: 1\nbounds: {default: 1}", HEAD, "give one of them"),
        ("codec: sz3\nbounds: {}", HEAD, "bounds.Bounds.default is"),
        ("codec: sz3\nbounds: ../b.yaml", HEAD, "not the name of a file beside it"),
        ("codec: [", HEAD, "cannot be parsed"),
    ],
)
def test_what_is_no_policy_is_one_sentence(tmp_path: Path, text: str, head: str, says: str) -> None:
    with pytest.raises(FormatError, match=rf"policy\.yaml: .*{says}") as told:
        read_policy(file(tmp_path, text, head))
    assert len(str(told.value).splitlines()) == 1


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        read_policy(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"b\.yaml: cannot be read"):
        read_policy(file(tmp_path, "codec: sz3\nbounds: b.yaml"))
