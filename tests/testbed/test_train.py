from pathlib import Path

import pytest
import torch
import typer

from offsim.testbed import train
from offsim.testbed.load import load


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "ROWS", 2)
    monkeypatch.setattr(train, "LENGTH", 24)


def trained(out: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The weights after four steps, stopped and started again after some of them."""
    trainer = train.Trainer(out, 4, seed=3)
    while trainer.step < 4:
        trainer.advance()
        if trainer.step in stops:
            trainer.save()
            trainer = train.Trainer(out, 4, seed=3)
    trainer.save()
    train.export(trainer, out / "checkpoint")
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", ())
    stopped = trained(tmp_path / "stopped", (1, 3))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert [path.name for path in (tmp_path / "stopped").glob("state-*")] == ["state-4.safetensors"]


def test_the_exported_checkpoint_holds_the_weights_in_bf16(tmp_path: Path) -> None:
    weights = trained(tmp_path, ())
    loaded = load(tmp_path / "checkpoint")
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, weights[name].bfloat16().float())


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    train.Trainer(tmp_path, 4, seed=3).save()
    with pytest.raises(typer.BadParameter, match="other --steps or --seed"):
        train.Trainer(tmp_path, 4, seed=4)


def test_the_rate_warms_up_and_decays() -> None:
    rates = [train.rate(step, 1000) for step in range(1000)]
    assert rates[0] == 0.01
    assert rates[99:601] == [1.0] * 502
    assert rates[-1] == pytest.approx(1 / 400)
