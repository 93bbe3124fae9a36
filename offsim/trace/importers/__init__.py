"""Traces that other programs wrote, read into the format of offsim."""

from offsim.trace.importers.base import Importer, Options
from offsim.trace.importers.registry import IMPORTERS, importer_named

__all__ = ["IMPORTERS", "Importer", "Options", "importer_named"]
