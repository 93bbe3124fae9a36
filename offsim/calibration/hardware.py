"""Parts of a machine from data sheets: one YAML file each, every number with its source.

All of it is ESTIMATED. A number that no source gives has a source that begins with `assumption`.
"""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, RootModel, model_validator

from offsim.calibration.schema import Positive, Seconds, Strict

VERSION = 1
LABEL = "ESTIMATED"
ASSUMED = "assumption"


class Sourced(Strict):
    """A number and where it comes from.

    Attributes:
        value: unit as the field says that holds it.
        source: title or URL; begins with `assumption` where there is none.
    """

    value: Positive
    source: str = Field(min_length=3)

    @property
    def assumed(self) -> bool:
        """Whether no source gives it."""
        return self.source.startswith(ASSUMED)


class Share(Sourced):
    """What is reached of a peak, 0..1."""

    value: Positive = Field(le=1)


class SourcedSeconds(Sourced):
    """A time that may be 0, s."""

    value: Seconds


class Part(Strict):
    """What the file of every part begins with.

    Attributes:
        title: for people.
        checked_on: when its sources were read.
    """

    format: Literal["offsim-hardware"] = "offsim-hardware"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    title: str
    checked_on: date


class Gpu(Part):
    """A device that computes.

    Attributes:
        memory_bytes: device memory.
        memory_bytes_per_s: peak of the device memory.
        memory_share: reached while a batch of one reads its weights.
        flop_per_s: peak of dense bf16 tensor cores with float32 accumulation.
        flop_share: reached by large matrix products.
        launch_s: from one small kernel to the next when the host launches them, s.
        cuszp_encode_bytes_per_s: float32 bytes of the values that cuSZp encodes in a second.
        cuszp_decode_bytes_per_s: float32 bytes of the values that cuSZp decodes in a second.
        power_w: of the whole board, at most.
        price_usd_per_h: rented; None where no public one was found.
    """

    kind: Literal["gpu"]
    memory_bytes: Sourced
    memory_bytes_per_s: Sourced
    memory_share: Share
    flop_per_s: Sourced
    flop_share: Share
    launch_s: Sourced
    cuszp_encode_bytes_per_s: Sourced
    cuszp_decode_bytes_per_s: Sourced
    power_w: Sourced
    price_usd_per_h: Sourced | None


class Link(Part):
    """Host to device.

    Attributes:
        nominal_bytes_per_s: of the standard, one direction.
        bytes_per_s: reached by large copies from pinned memory.
        latency_s: of one copy.
    """

    kind: Literal["link"]
    nominal_bytes_per_s: Sourced
    bytes_per_s: Sourced
    latency_s: SourcedSeconds

    @model_validator(mode="after")
    def _no_faster_than_the_standard(self) -> Self:
        if self.bytes_per_s.value > self.nominal_bytes_per_s.value:
            raise ValueError("bytes_per_s is above nominal_bytes_per_s")
        return self


class Host(Part):
    """A CPU that decodes for host codecs, and computes experts.

    Attributes:
        cores: of the machine.
        memory_bytes_per_s: reached while all cores read the weights of an expert.
        flop_per_s: reached in products with them, a multiply-add counting 2. Where this or the
            bandwidth is None, how fast the host computes is not known.
        sz3_encode_bytes_per_s: float32 bytes of the values that SZ3 encodes in a second, one core.
        sz3_decode_bytes_per_s: float32 bytes of the values that SZ3 decodes in a second, one core.
    """

    kind: Literal["host"]
    cores: Sourced
    sz3_encode_bytes_per_s: Sourced
    sz3_decode_bytes_per_s: Sourced
    memory_bytes_per_s: Sourced | None = None
    flop_per_s: Sourced | None = None


class Disk(Part):
    """What holds blobs that host memory does not.

    Attributes:
        bytes_per_s: large reads, one after the other.
        latency_s: of one read.
    """

    kind: Literal["disk"]
    bytes_per_s: Sourced
    latency_s: SourcedSeconds


class MachineParts(Part):
    """A machine by the names of its parts, which are files in the same folder."""

    kind: Literal["machine"]
    gpu: str
    link: str
    host: str
    disk: str


AnyPart = Annotated[Gpu | Link | Host | Disk | MachineParts, Field(discriminator="kind")]


class PartFile(RootModel[AnyPart]):
    """A file of any kind of part."""

    model_config = ConfigDict(frozen=True)


class Profile(Strict):
    """A machine put together.

    Attributes:
        name: of its file.
        title: for people.
    """

    name: str
    title: str
    gpu: Gpu
    link: Link
    host: Host
    disk: Disk

    @property
    def label(self) -> str:
        """Where its numbers come from: never measured here."""
        return LABEL

    @property
    def checked_on(self) -> date:
        """When the oldest of its sources was read."""
        return min(part.checked_on for part in (self.gpu, self.link, self.host, self.disk))

    @property
    def memory_bytes_per_s(self) -> float:
        """Device memory as it is reached, bytes/s."""
        return self.gpu.memory_bytes_per_s.value * self.gpu.memory_share.value

    @property
    def flop_per_s(self) -> float:
        """Matrix products as they are reached, FLOP/s."""
        return self.gpu.flop_per_s.value * self.gpu.flop_share.value

    def assumptions(self) -> list[str]:
        """Names of the numbers that no source gives, such as `gpu.launch_s`."""
        parts = {"gpu": self.gpu, "link": self.link, "host": self.host, "disk": self.disk}
        return [
            f"{kind}.{name}"
            for kind, part in parts.items()
            for name, value in part
            if isinstance(value, Sourced) and value.assumed
        ]
