import mmap
import os
import platform
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from offsim.errors import CodecError, InputError, RunError
from offsim.study.hands import OWN_PAGES, Hands, Message, Talk


def echo(talk: Talk, about: Message) -> None:
    """Say back what is said."""
    said = talk({"pid": os.getpid(), **about})
    while True:
        said = talk(said)


def fail(talk: Talk, about: Message) -> None:
    """Fail as it is told to."""
    kind = {"input": InputError, "codec": CodecError, "other": ZeroDivisionError}[about["kind"]]
    raise kind("so it is")


def take_again(talk: Talk, about: Message) -> None:
    """Say how many new pages memory takes that was there before."""
    before = 0
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(about["bytes"], np.uint8)
    talk({"pages": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before})


ECHO, FAIL, TAKE = (f"{__name__}:{work}" for work in ("echo", "fail", "take_again"))


def test_each_process_is_told_and_says() -> None:
    with Hands(3, ECHO, {"a": 1}) as hands:
        processes = set()
        for hand in hands.each:
            message = hand.hear()
            assert message["a"] == 1
            processes.add(message["pid"])
            hand.say({"number": message["pid"]})
        assert len(processes - {os.getpid()}) == 3
        heard = set()
        while len(heard) < 3:
            heard |= {hand.hear()["number"] for hand in hands.wait()}
        assert heard == processes


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("input", InputError, "so it is"),
        ("codec", RunError, "so it is"),
        ("other", RunError, "ZeroDivisionError: so it is"),
    ],
)
def test_what_goes_wrong_is_said(kind: str, error: type[Exception], said: str) -> None:
    with Hands(1, FAIL, {"kind": kind}) as hands, pytest.raises(error, match=said):
        hands.each[0].hear()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere memory is as it is")
def test_freed_memory_is_used_again() -> None:
    size = OWN_PAGES // 2
    with Hands(1, TAKE, {"bytes": size}) as hands:
        assert hands.each[0].hear()["pages"] < size / mmap.PAGESIZE / 10


def test_a_process_that_dies() -> None:
    with Hands(1, ECHO, {}) as hands:
        os.kill(hands.each[0].hear()["pid"], signal.SIGKILL)
        hands.each[0].say({})
        with pytest.raises(RunError, match=r"died \(signal SIGKILL\)"):
            hands.each[0].hear()


def test_at_least_one() -> None:
    with pytest.raises(InputError, match="0 jobs"):
        Hands(0, ECHO, {})


def test_they_end_with_the_block() -> None:
    with Hands(1, ECHO, {}) as hands:
        process = hands.each[0].hear()["pid"]
        os.kill(process, 0)
    assert not hands.each[0]._process.is_alive()


PROGRAM = """
import os, signal, sys
from offsim.study.hands import Hands
if __name__ == "__main__":
    hands = Hands(1, "tests.study.test_hands:echo", {})
    print(hands.each[0].hear()["pid"], flush=True)
    sys.stdin.read()
"""


def test_they_end_with_the_program_and_do_not_mind_ctrl_c(tmp_path: object) -> None:
    """As with a terminal, Ctrl-C goes to the whole group; the kill only to the program."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert program.stdout is not None
    worker = int(program.stdout.readline())
    os.killpg(program.pid, signal.SIGINT)
    _, said = program.communicate(timeout=20)
    assert said.count("Traceback") == 1  # of the program alone
    deadline = 200
    while deadline and _is_there(worker):
        deadline -= 1
        signal.sigtimedwait([], 0.05)
    assert deadline


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
