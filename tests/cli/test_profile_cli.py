import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from offsim.calibration.profiles import estimated, load_profile, load_shape
from offsim.calibration.schema import Calibration
from offsim.cli import main
from offsim.cli.profile import app
from offsim.files import read_yaml

RUNNER = CliRunner()
ON = ("make", "--machine", "rtx-4090-pcie4", "--model")


def test_the_list_names_machines_and_models_and_says_estimated() -> None:
    shown = RUNNER.invoke(app, ["list"])
    assert shown.exit_code == 0
    for text in ("Machines [ESTIMATED]", "Models [ESTIMATED]", "l4-pcie4", "mixtral-8x7b"):
        assert text in shown.output


def test_the_list_for_machines() -> None:
    shown = RUNNER.invoke(app, ["list", "--json"])
    assert shown.exit_code == 0
    listed = json.loads(shown.output)
    assert listed["label"] == "ESTIMATED"
    assert {row["label"] for row in listed["machines"] + listed["models"]} == {"ESTIMATED"}
    machines = {row["machine"]: row for row in listed["machines"]}
    assert machines["l4-pcie4"]["power_w"] == 72
    assert machines["l4-pcie4"]["price_usd_per_h"] is None
    assert machines["a100-80gb-pcie4"]["price_usd_per_h"] == 1.3
    assert "gpu.cuszp_decode_bytes_per_s" in machines["l4-pcie4"]["assumptions"]
    models = {row["model"]: row for row in listed["models"]}
    assert models["gpt-oss-120b"]["expert_bytes"] == 13_219_200


def test_make_writes_the_estimate(tmp_path: Path) -> None:
    out = tmp_path / "new" / "c.yaml"
    wanted = ("--codec", "cuszp:0.002", "--codec", "raw", "--sigma", "0.03", "--out", str(out))
    shown = RUNNER.invoke(app, [*ON, "olmoe-1b-7b", *wanted])
    assert shown.exit_code == 0
    assert "OLMoE-1B-7B on RTX 4090 on PCIe 4.0 [ESTIMATED]" in shown.output
    assert "experts of each layer that fit on the device: 64" in shown.output
    assert "assumed" not in shown.output
    keys = [("raw", 0.0), ("cuszp", 0.002)]
    profile, shape = load_profile("rtx-4090-pcie4"), load_shape("olmoe-1b-7b")
    assert read_yaml(out, Calibration) == estimated(profile, shape, keys, 0.03)


def test_make_says_what_it_assumes_and_prints_json(tmp_path: Path) -> None:
    wanted = ("--codec", "sz3:0.002", "--out", str(tmp_path / "c.yaml"), "--json")
    shown = RUNNER.invoke(app, [*ON, "olmoe-1b-7b", *wanted])
    assert shown.exit_code == 0
    assert "OLMoE-1B-7B are assumed to have a standard deviation of 0.02" in shown.stderr
    figures = json.loads(shown.stdout)
    assert [one["codec"] for one in figures["codecs"]] == ["raw", "sz3"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "grok"], "grok.yaml: no such model; there are deepseek-v2-lite"),
        (["--model", "gpt-oss-20b", "--codec", "sz3:0.002"], "only raw can be estimated for it"),
        (["--model", "olmoe-1b-7b", "--codec", "sz3:x"], "--codec sz3:x: 'x' is not a number"),
        (["--model", "olmoe-1b-7b", "--codec", "zip:1"], "no rates are known for codec zip"),
        (["--model", "olmoe-1b-7b", "--sigma", "0"], "--sigma is a number above zero, not 0"),
        (["--model", "olmoe-1b-7b", "--sigma", "nan"], "--sigma is a number above zero, not nan"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    says: str,
) -> None:
    out = tmp_path / "c.yaml"
    monkeypatch.setattr("offsim.cli.app.app", app)
    monkeypatch.setattr(sys, "argv", ["offsim", *ON[:-1], *arguments, "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    (message,) = shown.err.splitlines()
    assert message.startswith("offsim: ")
    assert says in message
    assert shown.out == ""
    assert not out.exists()


@pytest.mark.parametrize("command", ["list", "make"])
def test_help_has_an_example(command: str) -> None:
    shown = RUNNER.invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: offsim profile {command}" in shown.output
