from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from offsim.cli.groups import grouped


@dataclass(frozen=True)
class Pair:
    """Two options that go together."""

    left: Annotated[int, typer.Option(help="First.", min=0)] = 1
    right: Annotated[str, typer.Option("--right-hand", help="Second.")] = "b"


def invoke(*arguments: str) -> tuple[int, str, list[tuple[str, Pair, bool]]]:
    """Exit code, output and what a command with a group in its midst was given."""
    given = []

    @grouped
    def command(*, name: Annotated[str, typer.Option()], pair: Pair, last: bool = False) -> None:
        """Do nothing."""
        given.append((name, pair, last))

    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, arguments)
    return shown.exit_code, shown.output, given


def test_a_group_is_given_as_one() -> None:
    assert invoke("--name", "x") == (0, "", [("x", Pair(), False)])
    asked = ("--right-hand", "c", "--name", "x", "--left", "2", "--last")
    assert invoke(*asked) == (0, "", [("x", Pair(2, "c"), True)])


def test_its_options_are_checked_and_stand_where_it_stands() -> None:
    assert invoke("--name", "x", "--left", "-1")[0] == 2
    assert invoke("--left", "2")[0] == 2, "what has no default is required"
    code, shown, given = invoke("--help")
    assert (code, given) == (0, [])
    assert "Do nothing." in shown
    places = [shown.index(option) for option in ("--name", "--left", "--right-hand", "--last")]
    assert places == sorted(places)
