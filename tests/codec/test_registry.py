import pytest

from offsim.codec import CODECS, Codec, codec_named
from offsim.errors import InputError


def test_names() -> None:
    assert set(CODECS) == {"raw", "sz3", "cuszp"}
    for name, codec in CODECS.items():
        assert codec.name == name
        assert issubclass(codec, Codec)
        assert codec.placement in ("host", "device")


@pytest.mark.parametrize("name", CODECS)
def test_options_make_the_same_codec_again(name: str) -> None:
    codec = codec_named(name)
    again = codec_named(name, codec.options())
    assert type(again) is type(codec)
    assert again.options() == codec.options()


def test_options_are_taken() -> None:
    assert codec_named("sz3", {"algorithm": "INTERP"}).options() == {"algorithm": "INTERP"}


def test_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match="'zfp'; there are raw, sz3, cuszp"):
        codec_named("zfp")


@pytest.mark.parametrize("name", CODECS)
def test_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} does not take"):
        codec_named(name, {"level": "3"})
