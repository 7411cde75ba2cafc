"""Dose and response: what measured models do, by the tokens that they were made without, for drawings and tables. No
streamlit here."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ifguide.config.attributions import describe_kind
from ifguide.study.analysis.dose import COLUMNS, EDITED, TRAINED, Measured, interpolate, table_row
from ifguide.ui.format import column, count, variant_title
from ifguide.ui.palette import kind_colours
from ifguide.ui.results.tables import HEADLINE, Table, metric_table

STEPS = 12
"""Places at which a line between two measured models is drawn."""


def made_alike(points: Iterable[Measured]) -> list[list[Measured]]:
    """Models between which something can be interpolated, together."""
    groups: dict[tuple, list[Measured]] = {}
    for point in points:
        groups.setdefault((point.kind, point.method, point.series), []).append(point)
    return [*groups.values()]


def dose_parts(points: Sequence[Measured]) -> dict:
    """Measured models as `points`, and interpolations between neighbours that were made alike as `lines`, whose
    columns go from the fewest tokens up."""
    colours = kind_colours(point.kind for point in points)

    def about(point: Measured) -> dict:
        title, trained = describe_kind(point.kind).title, point.method == TRAINED
        return {"kind": point.kind, "title": title, "trained": trained, "colour": colours[point.kind]}

    drawn = [
        about(point)
        | {"name": variant_title(point.model), "above": point.tokens_above, "tp": list(point.tp)}
        | {"rise": None if point.rise is None else point.rise.value}
        for point in points
    ]
    return {"points": drawn, "lines": [about(group[0]) | _line(group) for group in made_alike(points)]}


def _line(points: Sequence[Measured]) -> dict:
    measured = sorted({point.tokens_above for point in points})
    steps = (np.geomspace(*ends, STEPS + 1) for ends in zip(measured, measured[1:], strict=False))
    places = sorted({*measured, *(round(place) for step in steps for place in step)})
    interpolated = [between for at in places if (between := interpolate(points, points[0].kind, points[0].method, at))]
    columns = {end: [getattr(between.tp, end) for between in interpolated] for end in ("value", "low", "high")}
    return columns | {"measured": measured, "above": places, "rise": [between.rise for between in interpolated]}


def dose_table(points: Sequence[Measured], metrics: Mapping[str, dict]) -> Table:
    """The models made against tokens above a threshold, by tokens, with `metrics` from `read_metrics`."""
    colours = kind_colours(point.kind for point in points)
    by_model = {point.model: colours[point.kind] for point in points}
    columns, rows = metric_table({point.model: metrics[point.model] for point in points}, HEADLINE, by_model)
    columns.insert(1, column("Tokens", note="Tokens that the model was made without"))
    for point, row in zip(points, rows, strict=True):
        seed = f", seed {point.seed}" if point.seed else ""
        made = "edited" if point.method == EDITED else "retrained"
        row["cells"][0][1] = f"{describe_kind(point.kind).title}, {made}{seed}"
        row["cells"].insert(1, count(point.n_tokens))
    return columns, rows


def dose_csv(points: Sequence[Measured]) -> str:
    """The same with all digits, for other programs."""
    rows = pd.DataFrame([table_row(point) for point in points], columns=[*COLUMNS])
    return rows.to_csv(index=False, lineterminator="\r\n")
