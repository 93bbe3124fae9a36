"""The options of commands that can show the first steps of a run as a timeline."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from offsim.policy.tiers import Sizes
    from offsim.record import RunRecord


@dataclass(frozen=True)
class Timelines:
    """What to write of the first steps."""

    timeline: Annotated[
        Path | None,
        typer.Option(
            "--timeline",
            help="Also write the first steps as a JSON file of trace events, which ui.perfetto.dev "
            "and chrome://tracing open.",
        ),
    ] = None
    timeline_figure: Annotated[
        Path | None,
        typer.Option("--timeline-figure", help="Also draw the first steps into this PNG."),
    ] = None
    timeline_steps: Annotated[
        int, typer.Option("--timeline-steps", help="Steps of both: the first so many.", min=1)
    ] = 20

    @property
    def wanted(self) -> bool:
        """Whether there is anything to write."""
        return self.timeline is not None or self.timeline_figure is not None

    def check(self) -> None:
        """Refuse, before any work, files that could not be written.

        Raises:
            InputError: a folder cannot be written, a name is that of a folder, or both are one
                file.
        """
        from offsim.errors import InputError
        from offsim.files import check_writable

        asked = [path for path in (self.timeline, self.timeline_figure) if path is not None]
        for path in asked:
            if path.is_dir():
                raise InputError(f"{path}: cannot be written (it is a folder); choose another")
            check_writable(path.parent)
        if len({path.resolve() for path in asked}) < len(asked):
            raise InputError(
                f"{self.timeline_figure}: --timeline and --timeline-figure are one file; name two"
            )

    def write(
        self,
        record: "RunRecord",
        policy: str,
        model: str,
        link_bytes_per_s: float | None,
        sizes: "Sizes",
    ) -> None:
        """Write what was asked for of the first steps of a run, and say so on stderr.

        Args:
            record: of the run.
            policy: in words; also in the title of the figure.
            model: its name.
            link_bytes_per_s: pace of the link; None for plain copies.
            sizes: bytes that an expert takes in the cache, in each tier where there are two.

        Raises:
            InputError: a file cannot be written.
        """
        if self.timeline:
            from offsim.record.timeline import write_timeline

            link = "plain" if link_bytes_per_s is None else f"{link_bytes_per_s / 1e6:g} MB/s"
            about = {"policy": policy, "model": model, "link": link}
            write_timeline(record, self.timeline, about, self.timeline_steps, sizes)
            typer.echo(f"{self.timeline}: written; ui.perfetto.dev opens it", err=True)
        if self.timeline_figure:
            from offsim.files import replacing
            from offsim.report.style import png
            from offsim.report.timeline import timeline_figure

            image = png(timeline_figure(record, (0, self.timeline_steps - 1), policy))
            with replacing(self.timeline_figure) as partial:
                partial.write_bytes(image)
            typer.echo(f"{self.timeline_figure}: written", err=True)
