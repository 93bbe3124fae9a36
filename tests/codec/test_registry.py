import pytest

from offsim.codec import CODECS, Codec, codec_named
from offsim.codec.registry import VARIANTS, codec_names
from offsim.errors import InputError

from .checks import HERE

EACH = pytest.mark.parametrize("name", [*HERE, *VARIANTS])


def test_names() -> None:
    assert list(CODECS) == codec_names()
    assert {"raw", "sz3", "cuszp", "zfp", "lossless", "nvcomp", "rtn-int8", "rtn-int4"} == set(
        CODECS
    )
    for name, codec in CODECS.items():
        assert codec.name == name
        assert issubclass(codec, Codec)
        assert codec.placement in ("host", "device")
        assert codec.promise in ("exact", "bound", "none")


@EACH
def test_options_make_the_same_codec_again(name: str) -> None:
    codec = codec_named(name)
    again = codec_named(codec.name, codec.options())
    assert type(again) is type(codec)
    assert again == codec
    assert hash(again) == hash(codec)
    assert again.options() == codec.options()


@EACH
def test_text_makes_the_same_codec_again(name: str) -> None:
    assert str(codec_named(name)) == name
    assert repr(codec_named(name)) == f"<codec {name}>"
    assert codec_named(str(codec_named(name))) == codec_named(name)


def test_codecs_differ_by_name_and_options() -> None:
    found = [codec_named(name) for name in (*HERE, *VARIANTS)]
    assert len(set(found)) == len(found)
    assert codec_named("raw") != "raw"


def test_options_are_taken() -> None:
    assert codec_named("sz3", {"algorithm": "INTERP"}) == codec_named("sz3:algorithm=INTERP")
    assert str(codec_named("sz3:algorithm=NOPRED")) == "sz3"


@pytest.mark.parametrize("text", ["sz3:INTERP", "sz3:algorithm=", "sz3:=INTERP", "sz3:,"])
def test_text_that_is_not_key_and_value_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="write key=value"):
        codec_named(text)


def test_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match="'zip'; there are raw, sz3, cuszp"):
        codec_named("zip")


@pytest.mark.parametrize("name", HERE)
def test_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} does not take"):
        codec_named(name, {"speed": "3"})
