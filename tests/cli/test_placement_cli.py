import json
from pathlib import Path

import pytest

from offsim.calibration.profiles import load_shape
from offsim.calibration.schema import DiskFigures
from offsim.cli.placement import with_memory
from offsim.files import write_yaml
from offsim.policy.policy import Policy
from offsim.trace import save_trace
from tests.builders import TOY, calibration, codec_figures, sized

from .test_cli import run

PLACED = ("--host-memory", "2KiB", "--host-tokens", "1")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """A trace, and a calibration with a disk and a host that computes."""
    save_trace(TOY, tmp_path / "toy.safetensors")
    figures = calibration(
        codec_figures(), codec_figures("cuszp", 0.5, blob_bytes=500, decode_s=0.5)
    )
    compute = figures.compute.model_copy(update={"host_expert": sized((1, 0.25))})
    disk = DiskFigures(label="ESTIMATED", latency_s=0.5, bytes_per_s=500.0)
    write_yaml(tmp_path / "toy.yaml", figures.model_copy(update={"compute": compute, "disk": disk}))
    write_yaml(tmp_path / "plain.yaml", calibration(codec_figures(), codec_figures("sz3", 0.5)))
    return (
        "--trace",
        str(tmp_path / "toy.safetensors"),
        "--calibration",
        str(tmp_path / "toy.yaml"),
        "--link",
        "0.001",
    )


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, float]:
    assert run(monkeypatch, *arguments, "--json") == 0
    metrics: dict[str, float] = json.loads(capsys.readouterr().out)
    return metrics


@pytest.mark.parametrize("command", ["simulate", "serve"])
def test_experts_are_placed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    command: str,
) -> None:
    metrics = shown(monkeypatch, capsys, command, *files, *PLACED)
    assert metrics["disk_bytes"] > 0
    assert metrics["label"] == "ESTIMATED", "as its disk is"
    assert metrics["hit_rate"] == 0, "whatever is missing is computed on the host"
    assert metrics == shown(
        monkeypatch, capsys, command, *files, "--host-memory", "2048", "--host-tokens", "auto"
    ) | {"link_bytes": metrics["link_bytes"]}


def test_compressed_experts_hit_more_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    asked = ("simulate", *files, "--codec", "cuszp", "--bound", "0.5", "--slots", "100")
    # The toy's experts have 6 B as stored, its blobs 500: a slot for 83 decoded holds one blob.
    compressed = shown(monkeypatch, capsys, *asked, "--keep", "compressed")
    assert compressed["hit_rate"] < shown(monkeypatch, capsys, *asked)["hit_rate"]


def test_two_tiers_divide_the_slots(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    asked = ("simulate", *files, "--codec", "cuszp", "--bound", "0.5", "--slots", "4")
    decoded = shown(monkeypatch, capsys, *asked)
    every = shown(monkeypatch, capsys, *asked, "--keep", "both", "--decoded-share", "1")
    assert every == decoded
    half = shown(monkeypatch, capsys, *asked, "--keep", "both")
    assert half == shown(monkeypatch, capsys, *asked, "--keep", "both", "--decoded-share", "0.5")
    # Two of four experts are decoded; a blob of 500 B has no room in the 12 B of the others.
    assert half["hit_rate"] == shown(monkeypatch, capsys, *asked, "--slots", "2")["hit_rate"]


def test_blobs_that_are_decoded_again_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    asked = ("simulate", *files, "--codec", "cuszp", "--bound", "0.5", "--slots", "400")
    both = ("--keep", "both", "--decoded-share", "0.004")
    again = shown(monkeypatch, capsys, *asked, *both)["again_rate"]
    assert 0 < again < shown(monkeypatch, capsys, *asked, "--keep", "compressed")["again_rate"]
    assert run(monkeypatch, *asked, *both) == 0
    said = capsys.readouterr().out
    assert "cuszp 0.5, lru 400, 0.004 kept decoded and the rest compressed" in said
    assert f"{again:.1%} of lookups" in said


def test_it_is_said_where_experts_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    assert run(monkeypatch, "simulate", *files, *PLACED) == 0
    said = capsys.readouterr().out
    assert "raw, lru 4, 2048 B of host memory, up to 1 token on the host [ESTIMATED]" in said
    assert "from disk" in said


@pytest.mark.parametrize("command", ["explain", "breakeven"])
def test_questions_are_answered_of_placed_experts(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    command: str,
) -> None:
    how = ("--host-memory", "2KiB", "--slots", "2")
    if command == "breakeven":
        how += ("--keep", "both", "--decoded-share", "0.75")
    else:
        how += ("--host-tokens", "auto")
    assert run(monkeypatch, command, *files, *how, "--json") == 0
    setting = json.loads(capsys.readouterr().out)["setting"]
    assert setting["host_bytes"] == 2048
    assert setting["keep"] == ("both" if command == "breakeven" else "decoded")
    assert setting["decoded_share"] == (0.75 if command == "breakeven" else 0.5)
    assert (setting["host_tokens"] > 0) == (command == "explain")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host-memory", "much"), "--host-memory is such as 64MiB"),
        (("--host-memory", "9" * 400), "--host-memory is at most 1.07e+09 GiB, not inf B"),
        (("--device-memory", "9" * 400 + "MiB"), "--device-memory is at most"),
        (("--chunk", "9" * 400), "--chunk is at most"),
        (("--prefetch", "oracle", "--prefetch-budget", "9" * 20), "--prefetch-budget is at most"),
        (("--host-tokens", "-1"), "--host-tokens is a number from 0 on or auto, not -1"),
        (("--host-tokens", "all"), "--host-tokens is a number from 0 on or auto, not all"),
        (("--keep", "compressed"), "codec raw does not decode on the device"),
        (("--keep", "both"), "codec raw does not decode on the device"),
        (("--keep", "both", "--decoded-share", "1.5"), "decoded_share"),
        (("--keep", "compressed", "--decoded-share", "0.5"), "kept in both tiers, not compressed"),
        (("--decoded-share", "0.5"), "kept in both tiers, not decoded; give --keep both"),
        (("--host-tokens", "1", "--codec", "cuszp", "--bound", "0.5"), "take raw or a host codec"),
        (("--host-tokens", "auto", "--codec", "cuszp", "--bound", "0.5"), "raw or a host codec"),
    ],
)
def test_wrong_values_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    options: tuple[str, ...],
    says: str,
) -> None:
    assert run(monkeypatch, "simulate", *files, *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host-memory", "1KiB"), "no disk beneath it"),
        (("--host-tokens", "1"), "does not say how fast"),
        (("--host-tokens", "auto"), "does not say how fast"),
        (("--keep", "compressed", "--codec", "sz3", "--bound", "0.5"), "take a device codec"),
    ],
)
def test_what_was_not_calibrated_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    options: tuple[str, ...],
    says: str,
) -> None:
    plain = [text.replace("toy.yaml", "plain.yaml") for text in files]
    assert run(monkeypatch, "serve", *plain, *options) == 2
    assert says in capsys.readouterr().err


RUN = "--slots 2 --link plain --hidden 16 --intermediate 24 --tokens 4"


@pytest.mark.parametrize(
    ("how", "placed"),
    [
        (f"--host-memory 8KiB --disk {{here}} {RUN}", "8192 B of host memory"),
        (f"--host-tokens 1 --host-memory 8KiB {RUN}", "up to 1 token on the host"),
        (f"--keep compressed --codec cuszp --bound 0.0078125 {RUN}", "kept compressed"),
        (
            f"--keep both --decoded-share 0.6 --codec cuszp --bound 0.0078125 {RUN}",
            "0.6 kept decoded and the rest compressed",
        ),
        (f"--low cuszp:0.03125 --low-below 0.9 {RUN}", "cuszp 0.03125 below a weight of 0.9"),
    ],
)
def test_experts_are_placed_for_real(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    tmp_path: Path,
    how: str,
    placed: str,
) -> None:
    here = tmp_path / "disk"
    here.mkdir()
    asked = ("run", "--trace", files[1], *how.format(here=here).split())
    assert run(monkeypatch, *asked) == 0
    found = capsys.readouterr()
    assert placed in found.out
    assert "[MEASURED]" in found.out
    assert ("offsim: note: blobs are read from" in found.err) == ("--host-memory" in how)
    assert ("from disk" in found.out) == ("--host-memory" in how)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("--host-tokens auto", "--host-tokens auto goes by a calibration, which a run has not"),
        ("--disk .", "--disk is of host memory with a size; give --host-memory"),
        ("--keep compressed", "codec raw does not decode on the device"),
        ("--keep both --codec sz3 --bound 0.5", "take a device codec"),
        ("--host-tokens 1 --codec cuszp --bound 0.5", "take raw or a host codec"),
        ("--host-memory 1KiB --disk nowhere", "--disk nowhere: there is no such folder"),
        ("--low sz3:0.5 --low-below 0.5", "take two that decode in one place"),
        ("--low cuszp:0.5 --low-below 0.5 --keep compressed", "come coarse only where host"),
        ("--host-memory 1MiB --memory 100KiB", "more than the"),
    ],
)
def test_what_cannot_run_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    how: str,
    says: str,
) -> None:
    assert run(monkeypatch, "run", "--trace", files[1], *RUN.split(), *how.split()) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert says in lines[-1]
    assert lines[-1].startswith("offsim: ")


def test_more_slots_than_experts_are_all_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    for scope in ("layer", "global"):
        asked = ("simulate", *files, "--scope", scope, "--slots")
        assert shown(monkeypatch, capsys, *asked, "3000000000") == shown(
            monkeypatch, capsys, *asked, "4"
        )


def test_device_memory_stands_for_the_slots_that_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    bytes_of_a_slot_each = TOY.layers * 6  # the toy's experts have 6 B as stored
    memory = str(3 * bytes_of_a_slot_each - 1)
    fitted = shown(monkeypatch, capsys, "simulate", *files, "--device-memory", memory)
    assert fitted == shown(monkeypatch, capsys, "simulate", *files, "--slots", "2")
    both = ("--codec", "cuszp", "--bound", "0.5", "--keep", "both")
    memory = str(999 * bytes_of_a_slot_each)  # more than one for each expert
    fitted = shown(monkeypatch, capsys, "simulate", *files, *both, "--device-memory", memory)
    assert fitted == shown(monkeypatch, capsys, "simulate", *files, *both, "--slots", "999")
    assert run(monkeypatch, "simulate", *files, "--device-memory", "5") == 2
    assert "no room for one expert of each layer" in capsys.readouterr().err


def test_one_pool_has_all_that_fits_into_device_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    asked = ("simulate", *files, "--scope", "global")
    whole = str(2 * TOY.layers * 6)
    assert shown(monkeypatch, capsys, *asked, "--device-memory", whole) == shown(
        monkeypatch, capsys, *asked, "--slots", "2"
    )
    assert run(monkeypatch, *asked, "--device-memory", str(8 * 6 + 5)) == 0
    assert "raw, lru 2, one pool with 2 more [ESTIMATED]" in capsys.readouterr().out
    with_all = shown(monkeypatch, capsys, *asked, "--device-memory", "1MiB")
    assert with_all == shown(monkeypatch, capsys, *asked, "--slots", "4")
    assert run(monkeypatch, *asked, "--device-memory", "5") == 2
    assert "no room for one expert, which takes" in capsys.readouterr().err
    driven = ("run", "--trace", files[1], *RUN.split(), "--scope", "global")
    assert run(monkeypatch, *driven, "--device-memory", str(7 * 3 * 16 * 24 * 2)) == 0
    assert "lru 2, one pool with 1 more" in capsys.readouterr().out


def test_device_memory_holds_experts_of_fewer_than_8_bits() -> None:
    facts = load_shape("gpt-oss-120b").facts("gpt-oss-120b")
    assert facts.dtype_bytes == 1
    each = facts.layers * 13_219_200
    assert with_memory(Policy(), str(6 * each), facts).slots == 6
    assert with_memory(Policy(), "3000MiB", facts).slots == 6
    pooled = with_memory(Policy(scope="global"), "3000MiB", facts)
    assert pooled.pools(facts.layers) == [3000 * 2**20 // 13_219_200]
