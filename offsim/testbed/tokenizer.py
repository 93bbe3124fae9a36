"""Text as the 128 ids of the embedded model: its ASCII bytes, with 0 for padding."""

VOCABULARY = 128
PAD = 0
END = ord("\n")


def encode(text: str) -> list[int]:
    """Ids of an ASCII text.

    Args:
        text: ASCII characters other than NUL.

    Returns:
        One id in 1..127 a character.

    Raises:
        ValueError: a character is not in the vocabulary.
    """
    ids = [ord(character) for character in text]
    for position, token in enumerate(ids):
        if not 0 < token < VOCABULARY:
            raise ValueError(f"character {text[position]!r} at {position} is not ASCII")
    return ids


def decode(ids: list[int]) -> str:
    """Text of ids; padding is left out."""
    return "".join(chr(token) for token in ids if token != PAD)
