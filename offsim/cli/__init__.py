"""The command line: thin commands over the floors below, one file a command."""

from offsim.cli.app import main

__all__ = ["main"]
