"""offsim/codec/cuszp.cu on the CPU: built by the C++ compiler, launched by the plans of cuda.py."""

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

from offsim.codec.cuszp_kernels import cuda
from offsim.codec.cuszp_kernels.cuda import Launch

FOLDER = Path(__file__).parent
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared"]


class Shim:
    """The kernels by name.

    Args:
        compiler: a C++ compiler.
        folder: where the shared object goes.
        more: further flags, such as -fsanitize=address.
    """

    def __init__(self, compiler: str, folder: Path, more: Sequence[str] = ()) -> None:
        kernels = folder / "cuszp.cu"
        kernels.write_text(cuda.source(), encoding="utf-8")
        library = folder / "shim.so"
        source = f'-DKERNEL_SOURCE="{kernels}"'
        command = [compiler, *FLAGS, *more, source, FOLDER / "kernels.cpp"]
        subprocess.run([*command, "-o", library], check=True)
        self.library = ctypes.CDLL(str(library))
        self.library.launch.restype = None

    def sizes(self, kernel: str) -> list[int]:
        """Bytes of each parameter of a kernel."""
        sizes = (ctypes.c_int * 16)()
        count = self.library.parameters(kernel.encode(), sizes)
        assert count >= 0, f"the shim does not know the kernel {kernel}"
        return list(sizes[:count])

    def run(self, plan: Sequence[Launch], backwards: bool = False) -> None:
        """Every launch after the other; backwards, the last thread of the last block is first."""
        for launch in plan:
            assert [argument.itemsize for argument in launch.arguments] == self.sizes(launch.kernel)
            cells = [ctypes.create_string_buffer(a.tobytes(), 8) for a in launch.arguments]
            pointers = (ctypes.c_void_p * len(cells))(*map(ctypes.addressof, cells))
            self.library.launch(
                launch.kernel.encode(), launch.grid, launch.block, pointers, int(backwards)
            )
