"""The workers of a Dask scheduler, on any machines."""

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import contextmanager, suppress
from functools import partial

from offsim.errors import InputError, RunError
from offsim.study.sweep.executors import Crew, Hire
from offsim.study.sweep.inputs import Inputs
from offsim.study.sweep.work import provide, withdraw

try:
    from distributed import Client, KilledWorker, Worker, WorkerPlugin
    from distributed.comm.core import CommClosedError
except ImportError as error:
    raise InputError("--dask needs distributed: pip install 'offsim[cluster]'") from error

CONNECT_S = 20
AT_ONCE = 1000
"""Batches that the scheduler is given at a time, for workers that are there and that will come."""


class Provided(WorkerPlugin):
    """What every worker is given once, those that come later or come back too.

    Args:
        inputs: of a sweep.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs, self.name = inputs, f"offsim-{inputs.digest}"

    def setup(self, worker: Worker) -> None:
        """Called on a worker."""
        provide(self.inputs)

    def teardown(self, worker: Worker) -> None:
        """Called on a worker when the sweep is over."""
        withdraw(self.inputs.digest)


def scheduler(address: str) -> Hire:
    """The workers of a scheduler.

    Args:
        address: such as `tcp://host:8786`.
    """
    return partial(_workers, address)


@contextmanager
def _workers(address: str, inputs: Inputs) -> Iterator[Crew]:
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"--dask {address}: no scheduler answers there; start one with `dask scheduler`"
        ) from error
    plugin = Provided(inputs)
    try:
        with client:
            client.register_plugin(plugin)
            threads = sum(client.nthreads().values())
            try:
                yield Crew(client.get_executor(pure=False), threads, AT_ONCE, f"Dask at {address}")
            finally:
                with suppress(OSError):  # nobody is there any more
                    client.unregister_worker_plugin(plugin.name)
    except ImportError as error:
        raise InputError(
            f"--dask {address}: a worker lacks what this command has ({error}); install the same "
            "offsim everywhere"
        ) from error
    except KilledWorker as error:
        raise BrokenExecutor(str(error)) from error
    except (CancelledError, CommClosedError) as error:
        raise RunError(
            f"--dask {address}: the scheduler is gone; start it again, and the same command goes on"
        ) from error
