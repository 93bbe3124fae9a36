"""What decodes experts on a device: offsim's kernels, the official cuSZp, nvCOMP, side by side.

A run decodes with the kernels. The libraries are measured beside them on the same weights, from
memory of the device into memory of the device, so that one sees what another decoder would bring.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from offsim.calibration.fit import figure, undisturbed_rounds
from offsim.calibration.measure import timed
from offsim.calibration.schema import DecoderFigures
from offsim.codec import codec_named, encode
from offsim.codec.cuszp import Cuszp
from offsim.codec.cuszp_kernels.official import VARIABLE, DeviceMemory, OfficialCuszp
from offsim.codec.expert import ExpertBlob
from offsim.codec.nvcomp import ALGORITHMS, Nvcomp
from offsim.errors import InputError, RunError
from offsim.runtime.devices import Arrived, Device
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import single_compute_thread
from offsim.study.prepare import Key
from offsim.study.rounds import Rounds

OWN = "offsim's kernels"
OFFICIAL = "the official cuSZp library"
NVCOMP = "nvCOMP"


@dataclass(frozen=True)
class Prepared:
    """An expert that lies on a device and is decoded there again and again.

    Attributes:
        decoder: by what.
        codec: with its options.
        bound: absolute, unit of the weights; 0 for a lossless codec.
        nbytes: of its blob.
        stored_bytes: in its stored dtype.
        decode: asks for it; need not wait for the device.
        seconds: that it took, of each round.
    """

    decoder: str
    codec: str
    bound: float
    nbytes: int
    stored_bytes: int
    decode: Callable[[], object]
    seconds: Rounds[list[float]]

    def figures(self) -> DecoderFigures:
        """What the undisturbed rounds gave."""
        kept = undisturbed_rounds(self.seconds, median)
        return DecoderFigures(
            decoder=self.decoder,
            codec=self.codec,
            bound=self.bound,
            blob_bytes=self.nbytes,
            ratio=self.stored_bytes / self.nbytes,
            decode_s=figure([one for seconds in kept for one in seconds]),
        )


class DecoderSampler:
    """Decodes the first expert of a model by all that a device has for it.

    Args:
        device: that decodes.
        matrices: of the expert, in their stored dtype.
        stores: by codec and bound; those under cuSZp give the blobs.

    Attributes:
        left_out: what cannot be used here, and why: each a sentence.

    Raises:
        RunError: the official library decodes to other values.
    """

    def __init__(
        self, device: Device, matrices: Sequence[torch.Tensor], stores: Mapping[Key, ExpertStore]
    ) -> None:
        self.left_out: list[str] = []
        self._device = device
        self._prepared = [*self._cuszp(stores), *self._nvcomp(matrices)]

    def round(self, repeats: int) -> None:
        """Decode each so many times more."""
        with single_compute_thread():
            for one in self._prepared:
                one.seconds.append(timed(partial(self._whole, one.decode), repeats))

    def figures(self) -> list[DecoderFigures]:
        """What all rounds gave."""
        return [one.figures() for one in self._prepared]

    def _whole(self, decode: Callable[[], object]) -> None:
        decode()
        self._device.finish()

    def _cuszp(self, stores: Mapping[Key, ExpertStore]) -> Iterator[Prepared]:
        """The kernels, and the official library beside them, under each bound."""
        library = self._official()
        for store in stores.values():
            blob = store.blobs[0][0]
            if store.codec.name != Cuszp.name:
                continue
            if any(one.header.codec != Cuszp.name for one in blob.blobs):
                self.left_out.append(
                    f"{store.codec} {store.bound:g}: the first expert is not under this codec, "
                    "which cannot keep that bound on it; take a coarser one"
                )
                continue
            parts, _ = self._device.link(None).carry(blob.payloads())
            slot = self._device.slots(1, store.shape.values)[0]

            def prepared(
                name: str,
                decode: Callable[[], object],
                store: ExpertStore = store,
                blob: ExpertBlob = blob,
            ) -> Prepared:
                how = (name, str(store.codec), store.bound, blob.nbytes, blob.stored_bytes)
                return Prepared(*how, decode, Rounds())

            yield prepared(OWN, partial(self._device.unpack, blob, parts, slot, decoded=False))
            if library is not None:
                official = partial(decode_official, library, blob, parts, slot)
                official()
                self._device.finish()
                _check(slot, blob, library)
                yield prepared(f"{library.version} ({library.path})", official)

    def _official(self) -> OfficialCuszp | None:
        try:
            return OfficialCuszp(DeviceMemory(self._device.place))
        except InputError as error:
            self.left_out.append(f"{OFFICIAL}: {error}")
            return None

    def _nvcomp(self, matrices: Sequence[torch.Tensor]) -> Iterator[Prepared]:
        """Each algorithm of nvCOMP on the stored bytes."""
        for algorithm in ALGORITHMS:
            try:
                codec = Nvcomp(algorithm)
            except InputError as error:
                self.left_out.append(f"{NVCOMP}: {error}")
                return
            blobs = [encode(weights, codec) for weights in matrices]
            if any(one.header.codec != codec.name for one in blobs):
                self.left_out.append(f"{NVCOMP}: {algorithm} does not give these weights back")
                continue
            decodes = [codec.on_device(one.payload) for one in blobs]
            expert = ExpertBlob(tuple(blobs))
            yield Prepared(
                NVCOMP,
                str(codec),
                0.0,
                expert.nbytes,
                expert.stored_bytes,
                lambda decodes=decodes: [decode() for decode in decodes],  # type: ignore[misc]
                Rounds(),
            )


def decode_official(
    library: OfficialCuszp, blob: ExpertBlob, parts: Sequence[Arrived], slot: torch.Tensor
) -> None:
    """Fill a slot by the official library, which waits for the device.

    Args:
        library: that decodes.
        blob: of the expert, for its headers; each under cuSZp.
        parts: its payloads on the device.
        slot: [values] float32 on the device, overwritten: gate, up, down, not yet rounded to the
            stored dtype.
    """
    at = 0
    for matrix, part in zip(blob.blobs, parts, strict=True):
        header, room = matrix.header, slot[at : at + matrix.count]
        codec = codec_named(header.codec, header.options)
        assert isinstance(codec, Cuszp)  # all others were left out
        library.decompress(part, room, header.codec_bound, codec.mode, verify=False)
        at += matrix.count


def _check(slot: torch.Tensor, blob: ExpertBlob, library: OfficialCuszp) -> None:
    """Refuse a library that does not give the values of this blob."""
    parts = slot.cpu().split([matrix.count for matrix in blob.blobs])
    for number, (values, matrix) in enumerate(zip(parts, blob.blobs, strict=True)):
        if not torch.equal(values.to(matrix.torch_dtype), blob.decoded(number).view(-1)):
            raise RunError(
                f"the cuSZp library {library.path} decodes to other values than offsim does; "
                f"unset {VARIABLE} to calibrate without it"
            )
