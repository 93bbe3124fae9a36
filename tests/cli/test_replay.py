import json
from pathlib import Path

import pytest

from offsim.trace import save_trace
from tests.builders import TOY

from .test_cli import run


@pytest.fixture
def toy(tmp_path: Path) -> str:
    save_trace(TOY, tmp_path / "toy.safetensors")
    return str(tmp_path / "toy.safetensors")


def replayed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, float]:
    assert run(monkeypatch, "trace", "replay", *arguments, "--json") == 0
    found: dict[str, float] = json.loads(capsys.readouterr().out)
    return found


def test_slots_of_each_layer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy: str
) -> None:
    found = replayed(monkeypatch, capsys, toy, "--capacity", "2slots")
    assert found == {
        "lookups": 30,
        "hits": 18,
        "hit_rate": 0.6,
        "hit_rate_decode": 0.75,
        "bytes_read": None,
    }


def test_bytes_of_one_pool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy: str
) -> None:
    asked = ("--scope", "global", "--expert-bytes", "1000000")
    everything = replayed(monkeypatch, capsys, toy, *asked, "--capacity", "12MB")
    assert everything["bytes_read"] == (30 - everything["hits"]) * 1_000_000 == 10_000_000
    as_slots = replayed(monkeypatch, capsys, toy, *asked, "--capacity", "4slots")
    assert as_slots == everything
    assert replayed(monkeypatch, capsys, toy, *asked, "--capacity", "0.9MB")["hits"] == 0


def test_the_run_on_a_phone_from_its_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shared: Path,
    tmp_path: Path,
) -> None:
    route = shared / "traces" / "bigmoeonedge_gpt-oss-120b.route.csv"
    if not route.is_file():
        pytest.skip(f"needs {route.name} in shared/traces")
    out = str(tmp_path / "phone.safetensors")
    given = (str(route), "--format", "bigmoe", "--out", out)
    assert run(monkeypatch, "trace", "import", *given) == 0
    capsys.readouterr()
    asked = ("--cache", "lru", "--scope", "global", "--capacity", "3000MiB")
    found = replayed(monkeypatch, capsys, out, *asked)
    assert found["lookups"] == 6375
    assert round(100 * found["hit_rate"], 3) == 32.408
    assert round(100 * found["hit_rate_decode"], 3) == 44.835
    assert found["bytes_read"] == (6375 - found["hits"]) * 13_219_200


@pytest.mark.parametrize("cache", ["belady", "random", "pinned"])
def test_caches_that_must_know_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy: str, cache: str
) -> None:
    asked = ("--cache", cache, "--profile", toy, "--seed", "3", "--capacity", "2slots")
    assert replayed(monkeypatch, capsys, toy, *asked)["lookups"] == 30


def test_the_table_says_that_it_is_exact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy: str
) -> None:
    assert run(monkeypatch, "trace", "replay", toy) == 0
    shown = capsys.readouterr().out
    assert "lru of 4slots, layer [SIMULATED]" in shown
    assert "unknown" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--cache arc", "no cache is called 'arc'; there are lru"),
        ("--cache pinned", "pinned needs a profile"),
        ("--capacity 3000", "--capacity is such as 4slots or 3000MiB"),
        ("--capacity 1.5slots", "--capacity is such as"),
        ("--capacity 3Mib", "--capacity is such as"),
        (f"--capacity {'9' * 400}MiB", "--capacity is at most 1.07e+09 GiB, not inf B"),
        (f"--capacity {'9' * 400}slots", "--capacity is such as 4slots or 3000MiB"),
        ("--capacity 3MiB", "does not say how large an expert is; give --expert-bytes"),
        ("--profile none", "none: no such trace file"),
    ],
)
def test_wrong_input(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    toy: str,
    arguments: str,
    says: str,
) -> None:
    assert run(monkeypatch, "trace", "replay", toy, *arguments.split()) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert len(shown.err.strip().splitlines()) == 1
