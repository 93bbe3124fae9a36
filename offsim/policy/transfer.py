"""How loads move: in which parts, and by how many hands."""

from pydantic import BaseModel, ConfigDict, Field


class Transfer(BaseModel):
    """What a designer decides about the path of a load.

    Attributes:
        chunk_bytes: a transfer is cut into equal parts of at most this; what is asked for now goes
            first at each cut. None: whole.
        pipelined: whether a chunk is decoded while the next one moves; else a blob is decoded once
            all of it is there.
        channels: links that carry loads side by side, each at the speed of the link.
        decoders: how many blobs the host decodes side by side.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    chunk_bytes: int | None = Field(default=None, ge=1)
    pipelined: bool = False
    channels: int = Field(default=1, ge=1, le=64)
    decoders: int = Field(default=1, ge=1, le=256)

    def __str__(self) -> str:
        parts = []
        if self.chunk_bytes is not None:
            parts.append(f"chunks of {self.chunk_bytes}{' pipelined' if self.pipelined else ''}")
        if self.channels > 1:
            parts.append(f"{self.channels} channels")
        if self.decoders > 1:
            parts.append(f"{self.decoders} host decoders")
        return ", ".join(parts)
