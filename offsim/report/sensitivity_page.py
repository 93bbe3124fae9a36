"""The page of a sensitivity: self-contained HTML, and its figures as PNG files."""

import base64
from pathlib import Path

from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_fit import LEAST_JUDGED
from offsim.accuracy.sensitivity_parts import Additivity, Ranged
from offsim.errors import InputError
from offsim.files import read_json, replacing, write_text
from offsim.report import sensitivity as drawn
from offsim.report.page import PAGE, Picture
from offsim.report.style import small_png
from offsim.report.tables import Cell, Table
from offsim.report.templates import style_sheet, template_named
from offsim.report.text import NOTHING, number, percent

SENSITIVITY = "sensitivity.json"
"""The file of a sensitivity in its folder."""
REMEDY = "make the folder with `offsim sensitivity --out DIR`"


def write_sensitivity_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a sensitivity and its figures.

    The same file gives the same bytes.

    Args:
        folder: that `offsim sensitivity --out` wrote.
        out: file of the page, by default report.html in the folder; the figures go beside it.

    Returns:
        The file of the page.

    Raises:
        InputError: the file of the sensitivity is missing, or the page cannot be written.
        FormatError: it is not one.
    """
    path = folder / SENSITIVITY
    if not path.is_file():
        raise InputError(f"{path}: no such file; {REMEDY}")
    found = read_json(path, Sensitivity)
    page = out if out is not None else folder / PAGE
    pictures = {}
    for name, figure in drawn.figures(found).items():
        image = small_png(figure)
        with replacing(page.parent / f"{name}.png") as partial:
            partial.write_bytes(image)
        source = "data:image/png;base64," + base64.b64encode(image).decode("ascii")
        pictures[name] = Picture(source, figure.get_suptitle())
    write_text(page, _html(found, pictures))
    return page


def _html(found: Sensitivity, pictures: dict[str, Picture]) -> str:
    """The page; every value is escaped, only the package's own style sheet is not."""
    judged = found.additivity
    return template_named("sensitivity.html").render(
        css=style_sheet(),
        found=found,
        where=_where(found),
        figures={**dict.fromkeys(("layers", "matrices", "experts", "joints")), **pictures},
        answer=[_rises(found), *([] if judged is None else [_judged(judged)])],
        terms=terms_text(found),
        facts=facts_table(found),
        layers=layers_table(found),
        regimes=None if judged is None else regimes_table(judged),
    )


def _where(found: Sensitivity) -> str:
    """On what it was measured and when, in words."""
    if found.machine is None:
        return "on a machine and at a time that the file does not say"
    return f"on {found.machine.cpu}, {found.machine.measured_on}, by offsim {found.offsim}"


def facts_table(found: Sensitivity) -> Table:
    """What was measured on what."""
    model, sample, machine = found.model, found.sample, found.machine
    unknown = "not in the file"
    facts = {
        "model": f"{model.name}, {model.layers} layers of {model.experts} experts",
        "error": f"{found.source}, bounds of the kind {found.kind}",
        "texts": f"{sample.sequences} of {sample.tokens} tokens",
        "items asked under each joint injection": f"{sample.items}",
        "most seeds of a cell": f"{sample.seeds}",
        "cells": f"{len(found.cells)}",
        "joint injections": f"{len(found.joints)}",
        "processor": unknown if machine is None else f"{machine.cpu}, {machine.cores} cores",
        "measured on": unknown if machine is None else f"{machine.measured_on}",
        "time of all injections": unknown
        if found.seconds is None
        else f"{number(found.seconds / 60, 1)} minutes",
        "offsim": unknown if found.offsim is None else found.offsim,
    }
    rows = [[Cell(name), Cell(value)] for name, value in facts.items()]
    return Table("Model, texts and machine", (), [], rows, words=2)


def layers_table(found: Sensitivity) -> Table:
    """Divergence of every layer at every bound and under other codecs, and its interval."""
    cells = {
        (cell.place.layer, cell.bound.value): cell.kl
        for cell in found.cells
        if cell.place.matrix is None and cell.place.expert is None
    }
    rows = []
    for value in found.ladder:
        kl = [cells.get((layer, value)) for layer in range(found.model.layers)]
        texts = [NOTHING if one is None else _ranged(one) for one in kl]
        rows.append([Cell(f"{found.kind} {value:g}"), *map(Cell, texts)])
    rows += [[Cell(one.codec), *(Cell(_ranged(kl)) for kl in one.kl)] for one in found.unbounded]
    head = [
        "bound" if not found.unbounded else "bound or codec",
        *(f"layer {layer}" for layer in range(found.model.layers)),
    ]
    caption = (
        "KL of the next token from the model without an error, nats, all experts of one layer; 95 %"
    )
    return Table(caption, ("MEASURED",), head, rows)


def _ranged(one: Ranged) -> str:
    return f"{one.mean:.2g} [{one.low:.2g}, {one.high:.2g}]"


def regimes_table(judged: Additivity) -> Table:
    """How right sums of terms are, by their size."""
    near = f"within {judged.tolerance:.0%}"
    rows = [
        [
            Cell(f"{one.above:g} to {one.up_to:g}" if one.up_to <= 1 else f"above {one.above:g}"),
            Cell(f"{one.joints}"),
            Cell(NOTHING if one.right is None else f"{one.right}"),
            Cell(percent(one.median)),
            Cell(percent(one.worst)),
            Cell(percent(one.bias, signed=True)),
        ]
        for one in judged.regimes
    ]
    head = ["predicted KL, nats", "joint injections", near, "median error", "worst", "median bias"]
    caption = "Sums of terms against joint injections that no fit has seen, by the predicted loss"
    return Table(caption, ("MEASURED", "ESTIMATED"), head, rows)


def _rises(found: Sensitivity) -> str:
    fallen = [rise.layer for rise in found.rises if rise.falls]
    if fallen:
        layers = ", ".join(map(str, fallen))
        return f"The divergence falls at some bound, beyond its interval, in the layers {layers}."
    always = sum(rise.rises for rise in found.rises)
    return (
        f"The divergence rises with the bound in all {len(found.rises)} layers: at every step in "
        f"{always} of them, within the interval in the others."
    )


def _judged(judged: Additivity) -> str:
    tau = "unknown" if judged.kendall_tau is None else f"{judged.kendall_tau:.3f}"
    return (
        f"Of {judged.joints} joint injections the sum of terms is off by {percent(judged.median)} "
        f"in the median and {percent(judged.worst)} at worst, with a Kendall tau of {tau}; "
        f"{reach(judged)}."
    )


def reach(judged: Additivity) -> str:
    """How far losses add up, in words."""
    near = f"within {judged.tolerance:.0%}"
    if judged.joints < LEAST_JUDGED:
        return f"to say up to which size losses add up takes {LEAST_JUDGED} or more"
    if not judged.holds_up_to:
        return (
            f"there is no size up to which {judged.within:.0%} of ten or more are {near}: a sum is "
            "an order, and a number only as far as the table says"
        )
    if judged.worst <= judged.tolerance:
        return f"all are {near}, up to a predicted KL of {judged.holds_up_to:.3g}"
    return (
        f"at every size up to a predicted KL of {judged.holds_up_to:.3g} at least "
        f"{judged.within:.0%} are {near}; beyond that the loss need not add up"
    )


def terms_text(found: Sensitivity) -> str:
    """How the terms were made, in a sentence."""
    terms = found.terms
    errors = ", ".join(f"{name} {error:.1%}" for name, error in terms.curve_errors.items())
    why = f" (error at rungs left out, median: {errors})" if errors else ""
    matrices = "measured" if terms.matrices_measured else "taken as equal"
    experts = (
        f"measured for {terms.experts_measured} of {found.model.experts} a layer"
        if terms.experts_measured
        else "taken from their use"
    )
    return (
        f"terms [ESTIMATED]: curve {terms.curve}{why}; shares of matrices {matrices}, of experts "
        f"{experts}"
    )
