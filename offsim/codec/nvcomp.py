"""Lossless compression on the GPU through nvCOMP, the optional extra `nvcomp`."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from offsim.codec.base import Buffer, Codec, Shape, check_size
from offsim.errors import CodecError, InputError

ALGORITHMS = ("ANS", "Bitcomp", "Cascaded", "GDeflate", "LZ4", "Zstd")


class Nvcomp(Codec):
    """The stored bytes under an algorithm of nvCOMP, in its own container.

    Weights and payload are copied to the device and back: this is for sizes and for checking. A
    run that keeps both on the device calls nvCOMP itself.

    Args:
        algorithm: one of ALGORITHMS.

    Raises:
        InputError: no such algorithm, the package is not installed, or there is no CUDA device
            that it can use.
    """

    name = "nvcomp"
    placement = "device"
    promise = "exact"

    def __init__(self, algorithm: str = "ANS") -> None:
        if algorithm not in ALGORITHMS:
            raise InputError(
                f"nvcomp has no algorithm {algorithm!r}; it has {', '.join(ALGORITHMS)}"
            )
        self.algorithm = algorithm
        try:
            self._nvcomp: Any = importlib.import_module("nvidia.nvcomp")
        except ImportError as error:
            raise InputError(
                f"the codec nvcomp needs nvCOMP ({error}); run: pip install 'offsim[nvcomp]'"
            ) from error
        self._manager()

    def options(self) -> dict[str, str]:
        """The algorithm."""
        return {"algorithm": self.algorithm}

    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        """Compress the bytes of the tensor on the device.

        Raises:
            CodecError: nvCOMP refuses them.
        """
        data = weights.reshape(-1).view(torch.uint8).numpy()
        manager = self._manager()
        try:
            return _bytes(manager.encode(self._on_device(data)))
        except (RuntimeError, ValueError) as error:
            raise CodecError(f"nvcomp: {list(weights.shape)} values: {error}") from error

    def decode(
        self, payload: Buffer, shape: Shape, dtype: torch.dtype, bound: float
    ) -> torch.Tensor:
        """Decompress on the device and copy back.

        The size that the payload claims is checked before memory is taken for it.

        Raises:
            CodecError: the payload is no such stream, or holds another number of bytes.
        """
        expected = math.prod(shape) * dtype.itemsize
        manager = self._manager()
        try:
            stream = self._on_device(np.frombuffer(payload, np.uint8).copy())
            size = int(manager.get_uncomp_buffer_size(stream))
            if size != expected:
                raise CodecError(f"nvcomp: {size} bytes where {list(shape)} values take {expected}")
            data = _bytes(manager.decode(stream))
        except (RuntimeError, ValueError) as error:
            raise CodecError(f"nvcomp: not a stream of {self.algorithm} ({error})") from error
        check_size(self.name, data, expected, shape)
        return torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(dtype).view(shape)

    def on_device(self, payload: Buffer) -> Callable[[], object]:
        """A payload, copied to the device, as a call that decodes it there and leaves it there.

        The call need not wait for the device, and is for one thread.

        Args:
            payload: that `encode` gave.
        """
        manager, stream = self._manager(), self._on_device(np.frombuffer(payload, np.uint8).copy())
        return lambda: manager.decode(stream)

    def _manager(self) -> Any:
        """A codec of nvCOMP; one a call, for no two threads may share one."""
        try:
            return self._nvcomp.Codec(algorithm=self.algorithm)
        except RuntimeError as error:
            raise InputError(
                f"the codec nvcomp finds no CUDA device ({error}); run it where there is one"
            ) from error

    def _on_device(self, data: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
        """A copy of bytes in device memory."""
        return self._nvcomp.as_array(data).cuda()


def _bytes(array: Any) -> bytes:
    """The bytes of an nvCOMP array, wherever it is."""
    return np.asarray(array.cpu()).tobytes()
