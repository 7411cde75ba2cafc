"""Groups of people on the Threshold page: how often a selection takes the words that name them."""

import numpy as np
import streamlit as st

from ifguide.study.analysis.groups import LEAST, OWN_LIST, SOURCE, document_columns, mention_counts
from ifguide.ui import components, layout
from ifguide.ui.format import count, count_of, number
from ifguide.ui.loaders import MENTIONS_UP_TO, Loaded, remembered
from ifguide.ui.threshold.tables import group_table, value_table

AT_ONCE = 6
"""Groups beside the board: those taken most often."""
KNOTS = 48
"""Places at which the board knows a group's rate while the handle moves."""


@remembered(8)
def mention_ratios(loaded: Loaded, kind: str, window: int, above: tuple[int, ...], covered: tuple[int, ...]) -> dict:
    """Group -> its ratio at places of the board's knots: the tokens above, and the tokens covered with a window."""
    index, mentions = loaded.index(kind), loaded.mentions()
    thresholds = np.array([index.locate(n)[0] for n in above])
    counts = mention_counts(loaded.corpus(), loaded.scores(kind), thresholds, window, mentions)
    usual = np.asarray(covered) / index.n_valid
    return {group.name: (n / len(group.tokens) / usual).tolist() for group, n in zip(mentions, counts, strict=True)}


def board_groups(loaded: Loaded, settings: dict, knots: dict) -> dict:
    """What the board draws: `rows` of the groups taken most often, each with its exact ratio and its `ratios` at some
    numbers of tokens `above`, which leave a budget out."""
    window, above, ratios = settings["window"], (), {}
    shares = loaded.group_shares(settings)[:AT_ONCE]
    if shares and window < len(knots["covered"]):
        every = [pair for pair in zip(knots["above"], knots["covered"][window], strict=True) if pair[1]]
        above, covered = zip(
            *(every[i] for i in np.unique(np.linspace(0, len(every) - 1, KNOTS).astype(int))), strict=True
        )
        ratios = mention_ratios(loaded, settings["attribution"], window, above, covered)
    rows = [
        {"name": one.name, "often": one.often, "ratios": ratios.get(one.name, [])}
        | {end: round(value, 3) for end, value in zip(("ratio", "low", "high"), one.ratio, strict=True)}
        for one in shares
    ]
    return {"above": list(above), "rows": rows}


def show_groups(loaded: Loaded, settings: dict) -> None:
    """The table of all groups."""
    if loaded.corpus().n_tokens > MENTIONS_UP_TO:
        st.caption(f"Corpora of more than {count(MENTIONS_UP_TO)} tokens are not searched for groups.")
        return
    shares = loaded.group_shares(settings)
    columns, rows = group_table(shares)
    empty = f"No group is mentioned {LEAST} times."
    components.record_table(columns, rows, key="groups", label="Groups mentioned", empty=empty, sort=(3, True))
    st.caption(
        "A mention is a token of a word that names the group. Ratio: the share of its mentions that is selected, over"
        " the share of all tokens; 95% intervals over documents. The words name people in good and in bad sentences:"
        f" read some before you judge. Your own list: put `{OWN_LIST}` into the study's folder."
    )


def show_columns(loaded: Loaded, settings: dict, most: int) -> None:
    """The table of sources, or of the values of another column of the documents; `most` rows at first."""
    columns, chosen = document_columns(loaded.study), SOURCE
    if len(columns) > 1:
        chosen = layout.switch("Documents by", columns, key="by", default=chosen)
    title, shares = columns[chosen], loaded.column_shares(settings, chosen)
    table, label = value_table(title, shares), f"Selected tokens by {title.lower()}"
    components.record_table(*table, key=f"{chosen}_table", label=label, sort=(4, True), most=most)
    st.caption(
        "Ratio: the share of these documents' tokens that is selected, over the share of all tokens; 95% intervals over"
        " documents. For another column of your file, such as the author or language, make it `corpus.source_field`."
    )


def warn_of_groups(loaded: Loaded, settings: dict) -> str:
    """What a reader is told before saving a selection that takes a group's mentions, or a source, far more often than
    other tokens; empty if it takes none so."""
    sentences = []
    for what, noun, shares in (
        ("mentions", "group", loaded.group_shares(settings)),
        ("tokens", "source", loaded.column_shares(settings, SOURCE)),
    ):
        if often := [one for one in shares if one.often]:
            first, others = often[0], len(often) - 1
            more = f", and of {count_of(others, f'other {noun}')}" if others else ""
            ratio = f"{number(first.ratio.value, 1)}× as often as other tokens"
            sentences.append(f"Takes {what} of {first.name} {ratio}{more}: see {noun.title()}s")
    return ". ".join(sentences)
