import pytest

from offsim.testbed import tokenizer


def test_every_character_comes_back() -> None:
    text = "".join(map(chr, range(1, 128)))
    ids = tokenizer.encode(text)
    assert ids == list(range(1, 128))
    assert tokenizer.decode(ids) == text
    assert max(ids) < tokenizer.VOCABULARY


def test_ids_are_ascii() -> None:
    assert tokenizer.encode("Az\n") == [65, 122, 10]
    assert tokenizer.END == 10


def test_padding_is_left_out() -> None:
    assert tokenizer.decode([tokenizer.PAD, 65, tokenizer.PAD, 66]) == "AB"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize(
    ("text", "named"), [("ab\0", r"'\\x00' at 2"), ("é", "'é' at 0"), ("x\x80", r"'\\x80' at 1")]
)
def test_other_characters_are_refused_with_their_place(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tokenizer.encode(text)
