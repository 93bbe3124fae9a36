import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from offsim.calibration.schema import Calibration
from offsim.cli import main
from offsim.cli.bounds import app
from offsim.codec.bounds import Bound
from offsim.files import read_yaml, write_yaml
from offsim.policy.bound_kinds import by_hotness, by_layer, by_matrix, uniform, zones
from offsim.policy.bounds import Bounds, Rule
from offsim.policy.lookup import popularity_of
from offsim.trace import save_trace
from tests.builders import TOY, calibration, codec_figures

RUNNER = CliRunner()
ZONES = ("--layers", "4", "--shallow", "0.01", "--middle", "0.02", "--deep", "0.03")
A, B, C = Bound(0.01), Bound(0.02), Bound(0.03)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `offsim ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["offsim", *arguments])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("uniform", "--bound", "rel:0.01"), uniform(Bound(0.01, "rel"))),
        (("zones", *ZONES), zones(4, A, B, C)),
        (("zones", *ZONES, "--overlapping"), zones(4, A, B, C, overlapping=True)),
        (("layers", "--bounds", "0.01, 0.02,0.01"), by_layer([A, B, A])),
        (("matrix", "--gate", "0.01", "--up", "0.02", "--down", "0.03"), by_matrix(A, B, C)),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, tuple) else "",
)
def test_make(tmp_path: Path, arguments: tuple[str, ...], expected: Bounds) -> None:
    out = tmp_path / "new" / "b.yaml"
    shown = RUNNER.invoke(app, ["make", "--kind", *arguments, "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert read_yaml(out, Bounds) == expected
    assert shown.output.startswith(f"{expected}: ")
    shown = RUNNER.invoke(app, ["make", "--kind", *arguments, "--out", str(out), "--json"])
    assert Bounds.model_validate(json.loads(shown.stdout)) == expected


def test_make_by_hotness(tmp_path: Path) -> None:
    save_trace(TOY, tmp_path / "t.safetensors")
    out = tmp_path / "b.yaml"
    asked = ("--trace", str(tmp_path / "t.safetensors"), "--share", "0.25", "--hot", "0.01")
    shown = RUNNER.invoke(
        app, ["make", "--kind", "hotness", *asked, "--cold", "0.02", "--out", str(out)]
    )
    assert shown.exit_code == 0, shown.output
    assert read_yaml(out, Bounds) == by_hotness(popularity_of(TOY), 0.25, A, B, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("zones", "--layers", "4"), "--kind zones needs --shallow, --middle, --deep"),
        (("zones", *ZONES, "--gate", "1"), "--kind zones does not heed --gate; leave it out"),
        (("uniform", "--bound", "1", "--overlapping"), "does not heed --overlapping"),
        (("uniform", "--bound", "x"), "'x' is not a bound"),
        (("uniform", "--bound", "-1"), "a positive number, not -1"),
        (("layers", "--bounds", "0.01,,0.02"), "'' is not a bound"),
        (("zones", "--layers", "2", *ZONES[2:]), "zones are of 3 layers or more, not of 2"),
        (
            ("hotness", "--trace", "no.st", "--share", "0.5", "--hot", "1", "--cold", "2"),
            "no.st: no such trace file",
        ),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    out = tmp_path / "b.yaml"
    assert run(monkeypatch, "bounds", "make", "--kind", *arguments, "--out", str(out)) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("offsim: ")
    assert says in message
    assert not out.exists()


def test_out_may_not_be_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = ("bounds", "make", "--kind", "uniform", "--bound", "1", "--out", str(tmp_path))
    assert run(monkeypatch, *made) == 2
    assert "it is a folder" in capsys.readouterr().err


def rows(file: Path, *more: str) -> list[dict[str, str]]:
    shown = RUNNER.invoke(app, ["show", str(file), *more, "--json"])
    assert shown.exit_code == 0, shown.output
    found: list[dict[str, str]] = json.loads(shown.output)
    return found


def test_show_says_what_each_place_has(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    write_yaml(file, by_hotness({(1, 3): 2, (1, 1): 1}, 0.5, A, B, 2, 4))
    hot, cold = ({"gate": str(b), "up": str(b), "down": str(b)} for b in (A, B))
    assert rows(file, "--layers", "2", "--experts", "4") == [
        {"layer": "0", "experts": "0-1", **hot},
        {"layer": "0", "experts": "2-3", **cold},
        {"layer": "1", "experts": "0, 2", **cold},
        {"layer": "1", "experts": "1, 3", **hot},
    ]
    assert rows(file)[1] == {"layer": "0", "experts": "2 and later", **cold}
    assert rows(file)[-1] == {"layer": "2 and later", "experts": "all", **cold}
    write_yaml(file, by_matrix(A, B, C))
    only = {"layer": "all", "experts": "all", "gate": "0.01", "up": "0.02", "down": "0.03"}
    assert rows(file) == [only]
    shown = RUNNER.invoke(app, ["show", str(file)])
    assert "bounds 2 rules of b.yaml" in shown.output
    assert "0.03" in shown.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("default: 0.5\n", None),
        ("default: -1\n", "default is -1"),
        ("default: 1\nrules: [{bound: 1, layers: [-1]}]\n", "rules.0.layers.0 is -1"),
        ("default: 1\nrules: [{bound: 1, layers: [5]}]\n", "is about layer 5"),
        ("[", "cannot be parsed"),
        (None, "cannot be read"),
    ],
)
def test_a_file_is_refused_with_its_name_and_field(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str | None,
    says: str | None,
) -> None:
    file = tmp_path / "b.yaml"
    if text is not None:
        file.write_text(text)
    code = run(monkeypatch, "bounds", "show", str(file), "--layers", "3", "--experts", "2")
    assert code == (0 if says is None else 2)
    err = capsys.readouterr().err
    assert (says or "") in err
    assert len(err.splitlines()) == (0 if says is None else 1)


@pytest.mark.parametrize("command", ["make", "show"])
def test_help_has_an_example(command: str) -> None:
    shown = RUNNER.invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: offsim bounds {command}" in shown.output


@pytest.fixture
def asked(tmp_path: Path) -> tuple[str, ...]:
    """What asks about a trace on a machine that knows two bounds of cuszp, behind a command."""
    save_trace(TOY, tmp_path / "t.safetensors")
    bounds = ((0.125, 900), (0.25, 600))
    codecs = [codec_figures("cuszp", b, blob_bytes=size) for b, size in bounds]
    write_yaml(tmp_path / "c.yaml", calibration(codec_figures(), *codecs))
    files = ("--trace", str(tmp_path / "t.safetensors"), "--calibration", str(tmp_path / "c.yaml"))
    return (*files, "--slots", "0", "--link", "0.0001", "--codec", "cuszp", "--json")


def facts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    assert run(monkeypatch, *arguments) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


@pytest.mark.parametrize("command", ["simulate", "serve"])
def test_a_table_decides_the_bytes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    asked: tuple[str, ...],
    command: str,
) -> None:
    file = tmp_path / "b.yaml"
    write_yaml(file, uniform(Bound(0.25)))
    alike = facts(monkeypatch, capsys, command, *asked, "--bound", "0.25")
    assert facts(monkeypatch, capsys, command, *asked, "--bounds", str(file)) == alike
    write_yaml(file, by_layer([Bound(0.125), Bound(0.25), Bound(0.25)]))
    mixed = facts(monkeypatch, capsys, command, *asked, "--bounds", str(file))
    lookups = alike["link_bytes"] / 600
    assert mixed["link_bytes"] == lookups / 3 * 900 + lookups * 2 / 3 * 600


def test_explain_takes_a_table(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    asked: tuple[str, ...],
) -> None:
    file = tmp_path / "b.yaml"
    write_yaml(file, uniform(Bound(0.25)))
    alike = facts(monkeypatch, capsys, "explain", *asked, "--bound", "0.25")
    found = facts(monkeypatch, capsys, "explain", *asked, "--bounds", str(file))
    assert Bounds.model_validate(found.pop("setting")["bounds"]) == uniform(Bound(0.25))
    assert alike.pop("setting")["bound"] == 0.25
    assert found == alike
    write_yaml(file, by_layer([Bound(0.125), Bound(0.25), Bound(0.25)]))
    mixed = facts(monkeypatch, capsys, "explain", *asked, "--bounds", str(file))
    nbytes = [one["policy"]["link_bytes"] for one in (mixed, alike)]
    assert nbytes[0] / nbytes[1] == pytest.approx(700 / 600)
    assert mixed["resident"]["tpot_s"] == alike["resident"]["tpot_s"]


def test_breakeven_holds_a_table_against_raw(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    asked: tuple[str, ...],
) -> None:
    file = tmp_path / "b.yaml"
    write_yaml(file, uniform(Bound(0.25)))
    more = ("--bounds", str(file), "--codec", "cuszp:0.25")
    one, bound = facts(monkeypatch, capsys, "breakeven", *asked, *more)["codecs"]
    assert (one.pop("storage"), one.pop("bound")) == ("cuszp bounds 0 rules", 0)
    assert (bound.pop("storage"), bound.pop("bound")) == ("cuszp 0.25", 0.25)
    assert one == bound
    write_yaml(file, by_layer([Bound(0.125), Bound(0.25), Bound(0.25)]))
    assert run(monkeypatch, "breakeven", *asked[:-1], *more[:2]) == 0
    assert "cuszp bounds 2 rules" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("codecs", "says"),
    [
        ((), "--bounds is of a codec without a bound of its own; give --codec NAME"),
        (("cuszp:0.25",), "--bounds is of a codec without a bound of its own"),
        (("lossless",), "--bounds is of a codec without a bound of its own"),
        (("sz3",), "sz3 at bound 0.25 is not in the calibration"),
        (("cuszp:mode=plain",), "cuszp:mode=plain at bound 0.25 is not in the calibration"),
    ],
)
def test_breakeven_refuses_a_table_of_no_codec(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    asked: tuple[str, ...],
    codecs: tuple[str, ...],
    says: str,
) -> None:
    file = tmp_path / "b.yaml"
    write_yaml(file, uniform(Bound(0.25)))
    named = [part for codec in codecs for part in ("--codec", codec)]
    assert run(monkeypatch, "breakeven", *asked[:-3], "--bounds", str(file), *named) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert says in message


@pytest.mark.parametrize("command", ["simulate", "serve", "explain", "run"])
def test_a_bound_and_a_table_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    asked: tuple[str, ...],
    command: str,
) -> None:
    file = tmp_path / "b.yaml"
    write_yaml(file, uniform(Bound(0.25)))
    given = ("--codec", "cuszp") if command == "run" else asked
    for more, says in (
        (("--bound", "0.25"), "give one of them"),
        (("--codec", "raw"), "codec raw takes no bounds; leave --bounds out"),
    ):
        assert run(monkeypatch, command, *given, "--bounds", str(file), *more) == 2
        (message,) = capsys.readouterr().err.splitlines()
        assert says in message


def test_codecs_that_decode_in_different_places_are_refused(
    asked: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "b.yaml"
    write_yaml(file, Bounds(default=Bound(0.25), rules=(Rule(codec="rtn-int4", layers=(0,)),)))
    assert run(monkeypatch, "simulate", *asked, "--codec", "sz3", "--bounds", str(file)) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("offsim: bounds 1 rule names the codec rtn-int4, which decodes on")
    assert message.endswith("take codecs that decode in one place")


@pytest.mark.parametrize("command", ["simulate", "serve", "explain", "breakeven"])
def test_what_is_not_calibrated_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    asked: tuple[str, ...],
    command: str,
) -> None:
    file = tmp_path / "b.yaml"
    write_yaml(file, by_matrix(Bound(0.125), Bound(0.25), Bound(0.25)))
    assert run(monkeypatch, command, *asked, "--bounds", str(file)) == 2
    assert "calibrate again" in capsys.readouterr().err.splitlines()[-1]
    write_yaml(file, uniform(Bound(0.5)))
    assert run(monkeypatch, command, *asked, "--bounds", str(file)) == 2
    assert "0.5 is not in the calibration" in capsys.readouterr().err.splitlines()[-1]
    assert len(read_yaml(tmp_path / "c.yaml", Calibration).codecs) == 3
