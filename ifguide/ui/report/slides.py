"""Slides for a meeting, for the stage and the report: the claim, one pair of answers, where it comes from, the
threshold, the cost. No streamlit here."""

from collections.abc import Mapping, Sequence

import numpy as np

from ifguide.config.names import BASE, DEFAULT
from ifguide.selection.index import ScoreIndex
from ifguide.selection.saved import Selection
from ifguide.storage import artifacts
from ifguide.study.analysis.comparison import Comparison
from ifguide.study.analysis.dose import Measured
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.select import open_index
from ifguide.ui.excerpts import excerpt
from ifguide.ui.format import count, count_of, duration, number, score, share, signed
from ifguide.ui.palette import MUTED, kind_colours, variant_colours
from ifguide.ui.results import tables as comparison
from ifguide.ui.results.side_by_side import completion_cell
from ifguide.ui.veil import marked_words

FIRST_MODELS = ("base", "default", "edited", "random", "oracle")
"""Models that every summary of a study begins with."""
N_DOCUMENTS = 3
DOSES = 12
"""Measured models on a slide, beside the base model."""
N_BINS = 60


def make_slides(
    study: Study,
    metrics: Mapping[str, dict],
    difference: Comparison | None,
    names: Sequence[str],
    pair: dict,
    points: Sequence[Measured] = (),
) -> list[dict]:
    """Slides as dicts of key, title, lines (sentences), bars (label, value and interval as text, colour, whether it is
    hollow, value, ends of the interval), texts (heading, runs of text, each with whether it is marked and whether it is
    offensive, note), bins (heights from 0 to 1) with the bin of the cut, and steps (facts and texts of each bar, shown
    one at a time). `difference` compares `default` with `base` (None: different prompts); `pair` has a completion of
    each of the models `names`, from `side_by_side.prompt_payload`; `points` are the study's measured models."""
    claim, *more = comparison.headline({BASE: metrics[BASE]} | dict(metrics), DEFAULT, difference)
    colours, titles = variant_colours(metrics), comparison.metric_titles(metrics)
    models = [name for name in FIRST_MODELS if name in metrics]
    bars = [_bar(titles[name], metrics[name], colours[name]) for name in models]
    chosen, words = study.selection(DEFAULT), marked_words(study.samples(BASE))
    threshold, n, n_valid = (chosen.settings[key] for key in ("threshold", "n_selected", "n_valid"))
    bins, cut = _tail(open_index(study, chosen.settings["attribution"]), threshold)
    return [
        {
            "key": "claim",
            "title": claim,
            "lines": [*more, "Prompts with a toxic answer, with 95% intervals:"],
            "bars": bars,
        },
        {
            "key": "pair",
            "title": "The same prompt, before and after",
            "lines": ["Both models used the same random numbers."],
            "texts": pair_texts(names, pair, metrics),
        },
        {
            "key": "sources",
            "title": f"It learned this from {count_of(chosen.settings['n_documents_hit'], 'document')}",
            "lines": ["Excerpts of the most toxic ones. The second training pushes away from the marked words."],
            "texts": [_excerpt(study, chosen, int(index), words) for index in chosen.order[:N_DOCUMENTS]],
        },
        {
            "key": "threshold",
            "title": f"{count(n)} of {count_of(n_valid, 'token')} are selected ({share(n, n_valid)})",
            "lines": [
                "Every training token has a score: how far it moves the model toward toxic answers."
                f" The highest, above {score(threshold)}, are selected. Taller bars are more tokens, on a log scale."
            ],
            "bins": bins,
            "cut": cut,
        },
        *([_dose_slide(study, metrics, points, pair)] if len(points) > 1 else []),
        {"key": "costs", "title": "What it costs, and what is not shown", "lines": _costs(study, metrics)},
    ]


def pair_texts(names: Sequence[str], pair: dict, metrics: Mapping[str, dict]) -> list[list]:
    """A prompt and a completion of each of the models `names`, as a slide's texts."""
    texts, titles = [["Prompt", [[pair["prompt"], False, False]], ""]], comparison.metric_titles(metrics)
    for name, cell in zip(names, pair["rows"][0]["cells"], strict=True):
        if cell:
            texts.append([titles[name], cell_runs(cell), f"toxicity {cell['toxicity']}"])
    return texts


def cell_runs(cell: dict) -> list[list]:
    """The runs of a completion from `completion_cell`, for a slide."""
    return [[text, bool(span), bool(span) or cell["whole"]] for text, span in cell["runs"]]


def _bar(label: str, values: Mapping, colour: str) -> list:
    """A model's share of prompts with a toxic answer; hollow if it was edited."""
    ends = [values.get(f"tp{end}", values["tp"]) for end in ("", "_low", "_high")]
    return [label, *comparison.METRICS[1].cell(values), colour, bool(values.get("edited")), *ends]


def _dose_slide(study: Study, metrics: Mapping[str, dict], points: Sequence[Measured], pair: dict) -> dict:
    """Toxic answers of the base model and of the models made without tokens above a threshold, by their number."""
    places = np.linspace(0, len(points) - 1, min(len(points), DOSES)).round().astype(int)
    colours, bars, steps = kind_colours(point.kind for point in points), [], []
    for point in (None, *(points[i] for i in places)):
        name = point.model if point else BASE
        label, colour = (count(point.n_tokens), colours[point.kind]) if point else ("none", MUTED)
        bars.append(_bar(label, metrics[name], colour))
        text, interval, edited = bars[-1][1], bars[-1][2], bars[-1][4]
        facts = [f"{text} of prompts toxic ({interval})"]
        if point:
            made = "edited, not retrained" if edited else "retrained"
            facts.insert(0, f"Without {count_of(point.n_tokens, 'token')}, {made}")
            if point.rise:
                facts.append(f"perplexity {signed(100 * point.rise.value, 1)}%")
        steps.append([" · ".join(facts), _answer(study, name, pair)])
    lines = ["Filled: retrained. Hollow: edited, not retrained. Every bar was measured."]
    return {"key": "dose", "title": "Toxic answers by tokens taken out", "lines": lines, "bars": bars, "steps": steps}


def _answer(study: Study, name: str, pair: dict) -> list[list]:
    """A model's completion of the pair's prompt, of the same draw."""
    samples = study.samples(name)
    same = (samples["prompt"] == pair["prompt"]) & (samples["sample_index"] == pair["rows"][0]["sample"])
    cells = [completion_cell(row) for row in samples[same].to_dict("records")]
    end = " ".join(pair["prompt"].split()[-8:])
    return [[f"… {end} …", cell_runs(cell), f"toxicity {cell['toxicity']}"] for cell in cells[:1]]


def _excerpt(study: Study, chosen: Selection, index: int, words: frozenset[str]) -> list:
    corpus = study.corpus()
    here = slice(int(corpus.offsets[index]), int(corpus.offsets[index + 1]))
    scores = np.asarray(study.scores(chosen.settings["attribution"])[here])
    marked = np.asarray(chosen.mask[here])
    centre = int(np.argmax(np.where(marked, scores, -np.inf)))
    runs = excerpt(corpus, index, centre=centre, mask=chosen.mask, words=words)
    return [corpus.document(index).id, runs, count_of(int(marked.sum()), "selected token")]


def _tail(index: ScoreIndex, threshold: float) -> tuple[list[float], int]:
    """Bar heights of the upper part of the scores' distribution, and the bin of the threshold."""
    lowest, highest = index.extremes
    edges = np.linspace(max(lowest, threshold - (highest - threshold)), highest, N_BINS + 1)
    heights = np.log1p(index.histogram(edges)["count"].to_numpy())
    return (heights / max(1.0, heights.max())).round(4).tolist(), int(np.searchsorted(edges, threshold))


def _costs(study: Study, metrics: Mapping[str, dict]) -> list[str]:
    before, after = metrics[BASE], metrics[DEFAULT]
    costs = []
    if before.get("perplexity") and after.get("perplexity"):
        rise = after["perplexity"] / before["perplexity"] - 1
        ends = f"{number(before['perplexity'], 2)} → {number(after['perplexity'], 2)}"
        costs.append(f"Perplexity on harmless text: {ends} ({rise:+.1%}).".replace("-", "−"))
    if manifest := artifacts.read_manifest(study.folder(Unit("suppress", DEFAULT))):
        work = "Editing the model" if after.get("edited") else "Training the model again"
        costs.append(f"{work} took {duration(manifest['seconds'])}.")
    n_prompts, n_samples = count_of(before["n_prompts"], "prompt"), count_of(before["n_samples"], "completion")
    return [
        *costs,
        f"Measured on {n_prompts} with {n_samples} each, rated by {before['scorer']}: a classifier, not people.",
        "One training run of each model; another seed gives other numbers.",
    ]
