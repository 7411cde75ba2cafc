"""Dose and response: what measured models do, by the tokens that they were made without, for drawings and tables. No
streamlit here."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ifguide.config.attributions import describe_kind
from ifguide.study.analysis.dose import COLUMNS, EDITED, TRAINED, Measured, interpolate, table_row
from ifguide.ui.format import column, count, signed, variant_title
from ifguide.ui.palette import kind_colours
from ifguide.ui.results.tables import METRICS, Table

STEPS = 12
"""Places at which a line between two measured models is drawn."""


def dose_parts(points: Sequence[Measured]) -> dict:
    """Measured models as `points`, and interpolations between neighbours that were made alike as `lines`, whose
    columns go from the fewest tokens up."""
    colours = kind_colours(point.kind for point in points)
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for point in points:
        groups.setdefault((point.kind, point.method, point.series), []).append(point)
    drawn = [
        _about(point.kind, point.method, colours)
        | {"name": variant_title(point.model), "above": point.tokens_above, "tp": list(point.tp)}
        | {"rise": None if point.rise is None else point.rise.value}
        for point in points
    ]
    lines = [_about(*key[:2], colours) | _line(group, *key[:2]) for key, group in groups.items()]
    return {"points": drawn, "lines": lines}


def _about(kind: str, method: str, colours: Mapping[str, str]) -> dict:
    title, trained = describe_kind(kind).title, method == TRAINED
    return {"kind": kind, "title": title, "trained": trained, "colour": colours[kind]}


def _line(points: Sequence[Measured], kind: str, method: str) -> dict:
    measured = sorted({point.tokens_above for point in points})
    steps = (np.geomspace(*ends, STEPS + 1) for ends in zip(measured, measured[1:], strict=False))
    places = sorted({*measured, *(round(place) for step in steps for place in step)})
    found = [(place, between) for place in places if (between := interpolate(points, kind, method, place))]
    return {
        "measured": measured,
        "above": [place for place, _ in found],
        **{end: [getattr(between.tp, end) for _, between in found] for end in ("value", "low", "high")},
        "rise": [between.rise for _, between in found],
    }


def dose_table(points: Sequence[Measured]) -> Table:
    """Every measured model that was made against tokens above a threshold: scores, way, tokens, and what it does."""
    emt, tp, *_ = METRICS
    columns = [
        column("Model", "titled"),
        column("Tokens", note="Tokens that the model was made without"),
        *(column(metric.title, "interval", metric.note) for metric in (tp, emt)),
        column("Perplexity", "interval", "Against the base model's, on the same held-out text"),
    ]
    colours, rows = kind_colours(point.kind for point in points), []
    for point in points:
        edited, seed = point.method == EDITED, f", seed {point.seed}" if point.seed else ""
        made = f"{describe_kind(point.kind).title}, {'edited' if edited else 'retrained'}{seed}"
        cells: list = [[variant_title(point.model, edited), made, colours[point.kind], edited], count(point.n_tokens)]
        for metric, interval in ((tp, point.tp), (emt, point.emt)):
            cells.append([metric.text(interval.value), f"{metric.text(interval.low)} – {metric.text(interval.high)}"])
        value, low, high = (f"{signed(100 * end, 1)}%" for end in point.rise or (0, 0, 0))
        rows.append({"key": point.model, "cells": [*cells, [value, f"{low} – {high}"] if point.rise else ["–", ""]]})
    return columns, rows


def dose_csv(points: Sequence[Measured]) -> str:
    """The same with all digits, for other programs."""
    rows = pd.DataFrame([table_row(point) for point in points], columns=[*COLUMNS])
    return rows.to_csv(index=False, lineterminator="\r\n")
