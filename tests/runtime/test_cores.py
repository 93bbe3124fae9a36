"""Which cores threads have, and that one which sleeps is not kept waiting."""

import os
import sys
import threading

import pytest

from offsim.runtime.cores import run_promptly


def test_asking_for_prompt_wake_ups_changes_nothing_else() -> None:
    """In a thread of its own, and no error where the system does not know of it."""
    seen = []

    def ask() -> None:
        before = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
        accepted = run_promptly()
        seen.append(
            (accepted, before == (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)))
        )

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    ((accepted, same),) = seen
    assert same
    assert isinstance(accepted, bool)


def test_an_unknown_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "sunos")
    assert not run_promptly()
    monkeypatch.undo()
    monkeypatch.setattr("platform.machine", lambda: "vax")
    assert not run_promptly()
