"""What offsim requires, by its own metadata, and what of it is installed."""

from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement

from offsim.errors import InputError

OFFSIM = "offsim"


def extras() -> list[str]:
    """Names of offsim's extras, in alphabetical order."""
    return sorted(_metadata().get_all("Provides-Extra") or [])


def requirements(extra: str = "") -> list[Requirement]:
    """What offsim requires on this system.

    Args:
        extra: that of an extra, without what offsim requires anyway; empty for the latter.
    """
    texts = _metadata().get_all("Requires-Dist") or []
    return [one for one in map(Requirement, texts) if _applies(one, extra)]


def lacking(wanted: Iterable[Requirement]) -> list[str]:
    """What is missing or of another version, a few words each."""
    return [text for one in wanted if (text := _problem(one))]


def installed(name: str) -> str | None:
    """The version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _metadata() -> metadata.PackageMetadata:
    try:
        return metadata.metadata(OFFSIM)
    except metadata.PackageNotFoundError as error:
        raise InputError(
            "offsim is not installed, only its source is here; pip install -e ."
        ) from error


def _applies(one: Requirement, extra: str) -> bool:
    """Whether a requirement is of an extra, and of nothing less."""
    if one.marker is None:
        return not extra
    anyway = one.marker.evaluate({"extra": ""})
    return one.marker.evaluate({"extra": extra}) and not anyway if extra else anyway


def _problem(one: Requirement) -> str:
    version = installed(one.name)
    if version is None:
        return f"no {one.name}"
    if one.specifier.contains(version, prereleases=True):
        return ""
    return f"{one.name} {version} (wants {one.specifier})"
