"""The report's page: turns facts into values for `page.html`. Offensive words are blurred until revealed."""

import json
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from markupsafe import Markup

from ifguide import __version__
from ifguide.config.attributions import describe_kind
from ifguide.config.io import config_to_dict
from ifguide.config.names import BASE, DEFAULT
from ifguide.errors import IFGuideError, InputError
from ifguide.evaluation.outcomes import highest_toxicity
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.storage import artifacts
from ifguide.storage.artifacts import replacing
from ifguide.study.analysis.comparison import treatment_note
from ifguide.study.analysis.dose import measured_points
from ifguide.study.analysis.groups import read_groups, speech_by_group
from ifguide.study.analysis.judges import by_judge, describe_disagreement
from ifguide.study.analysis.likelihood import MODELS_MOST
from ifguide.study.analysis.rating import judge_agreement
from ifguide.study.reading import Study
from ifguide.study.stages.evaluating import shared_prompts_warning
from ifguide.ui.format import column, count, count_of, number, score, selection_title, share, variant_title
from ifguide.ui.palette import TOKEN_BINS, variant_colours
from ifguide.ui.report.facts import EXAMPLES, ReportFacts, ShownDocument, collect_facts
from ifguide.ui.report.figures import frontier_figure, toxicity_figure
from ifguide.ui.report.replay import hash_source
from ifguide.ui.report.slides import make_slides, pair_texts
from ifguide.ui.report.summary import what_was_done
from ifguide.ui.report.templates import ENVIRONMENT
from ifguide.ui.results import pins, side_by_side
from ifguide.ui.results import tables as comparison
from ifguide.ui.results.dose import dose_table
from ifguide.ui.results.frontier import frontier_points
from ifguide.ui.threshold.tables import group_table, value_table

WORDS = 25
_OF_GROUPS = ("emt", "words", "mentions")
ROWS = 2
"""Rows of completions shown for an example."""
STEPS = 3
"""Number of colours on each side of zero."""
MOST_BYTES = 5_000_000
"""Largest report."""


def report_html(study: Study, *, selection: str = "default") -> str:
    """The report of a study as HTML, with the words, documents and examples of one selection. An InputError: nothing
    was evaluated, or the page would be larger than `MOST_BYTES`."""
    page = build_page(collect_facts(study, selection))
    if (size := len(page.encode())) > MOST_BYTES:
        raise InputError(f"report: expected at most {MOST_BYTES:,} bytes, got {size:,}; evaluate fewer models")
    return page


def report_or_reason(study: Study) -> str:
    """The report, or a page that says why there is none, since a download can show an error in no other way."""
    try:
        return report_html(study)
    except IFGuideError as error:
        page = "<!doctype html>\n<title>No report</title><p>No report could be made: {{ reason }}</p>\n"
        return ENVIRONMENT.from_string(page).render(reason=error)


def write_report(study: Study, path: Path, *, selection: str = "default") -> Path:
    """Write the report; the file appears complete or not at all. An InputError as from `report_html`, or if the file
    cannot be written."""
    page = report_html(study, selection=selection)
    try:
        with replacing(path) as temporary:
            temporary.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        why = f"report: {path} cannot be written ({error.strerror}); choose another place with --out"
        raise InputError(why) from error
    return path


def build_page(facts: ReportFacts) -> str:
    """The whole page, the result first. Its policy forbids scripts and requests, and admits its one style sheet by its
    hash."""
    style = _style()
    colours, points = variant_colours(facts.metrics), frontier_points(facts.metrics)
    pair = pins.pinned_pair(facts.study, facts.samples.__getitem__)
    frontier = _tabled("Toxicity and perplexity", comparison.frontier_rows(facts.metrics, colours))
    sections = [
        ("examples", "Examples", _examples(facts)),
        ("metrics", "Metrics", _metrics(facts)),
        ("frontier", "Toxicity against fluency, in numbers", frontier if len(points) > 1 else None),
        ("doses", "Toxic answers by tokens taken out", _doses(facts)),
        ("distributions", "How toxic the completions are", _distributions(facts)),
        ("outcomes", "Prompt by prompt", _outcomes(facts)),
        ("done", "What was done", what_was_done(facts.study, {*facts.manifests}, facts.selection)),
        ("selections", "What was selected", _selections(facts)),
        ("words", "Words selected most", _words(facts)),
        ("groups", "Groups mentioned", _groups(facts)),
        ("sources", "Sources", _sources(facts)),
        ("documents", "Most toxic documents", _documents(facts)),
        ("settings", "Settings", _settings(facts)),
        ("artefacts", "Artefacts and versions", _artefacts(facts)),
    ]
    page = ENVIRONMENT.get_template("page.html").render(
        title=f"{facts.study.name}: which training tokens make it toxic",
        description=facts.study.config.description,
        policy=f"default-src 'none'; style-src {hash_source(style)}; base-uri 'none'; form-action 'none'",
        style=Markup(style),
        stale="; ".join(f"{stage}: {reason}" for stage, reason in facts.stale.items()),
        result=_result(facts),
        pair={"texts": pair_texts(pair["models"], pair, facts.metrics), "why": pair["change"]} if pair else {},
        limits=comparison.facts_text(facts.metrics[facts.first]),
        slides=_slides(facts, pair),
        chart=frontier_figure(points, colours, facts.edited) if len(points) > 1 else None,
        prompts_warning=shared_prompts_warning(facts.study),
        sections=[(place, heading, content) for place, heading, content in sections if content],
        version=__version__,
        now=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    return page.strip() + "\n"


def _style() -> str:
    light, dark = TOKEN_BINS["light"], TOKEN_BINS["dark"]
    pairs: dict = {f"b{i}": pair for i, pair in enumerate(zip(light["signed"], dark["signed"], strict=True))}
    pairs["token-ink"] = (light["ink"], dark["ink"])
    colours = " ".join(f"--{name}: light-dark({a}, {b});" for name, (a, b) in pairs.items())
    return f":root {{ {colours} }}\n{(Path(__file__).parent / 'report.css').read_text(encoding='utf-8')}"


def _result(facts: ReportFacts) -> list[str]:
    if facts.example is None:
        only = f"{comparison.METRICS[1].text(facts.metrics[facts.first].get('tp'))} of prompts have a toxic answer"
        return [f"{variant_title(facts.first)}: {only}. No other model was measured yet."]
    return comparison.headline(facts.metrics, facts.example, facts.differences[facts.example])


def _metrics(facts: ReportFacts) -> dict:
    columns, rows = comparison.metric_table(facts.metrics, colours=variant_colours(facts.metrics))
    warnings = [
        (variant_title(name, name in facts.edited), values.get("fluency_warning"))
        for name, values in facts.metrics.items()
    ]
    warnings.append(("Scores", treatment_note(facts.study, facts.metrics)))
    return {
        "table": (columns, rows + comparison.difference_rows(facts.metrics, facts.differences)),
        "measured": comparison.facts_text(facts.metrics[facts.first]),
        "judges": [table for table in (_judges(facts.study), _people(facts.study)) if table],
        "warnings": [(title, warning) for title, warning in warnings if warning],
        "shares": comparison.share_texts(facts.differences) if facts.first == "base" else [],
        "groups": _by_prompt_group(facts),
        "harness": comparison.harness_table(facts.metrics),
    }


def _judges(study: Study) -> dict | None:
    """EMT of every model by every judge, where several rated them."""
    figures, metric = by_judge(study.judged("")), comparison.METRICS[0]
    if len(figures) < 2:
        return None
    models = dict.fromkeys(model for values in figures.values() for model in values)
    rows = [{"cells": [variant_title(m), *(metric.cell(v.get(m, {})) for v in figures.values())]} for m in models]
    columns = [column("Model", "text"), *(column(title, "interval") for title in figures)]
    notes = [f"Judges disagree: {sentence}." for sentence in describe_disagreement(study.judged(""))]
    return _tabled("Worst-case toxicity by every judge", (columns, rows), *notes)


def _people(study: Study) -> dict | None:
    note = "People rated answers without seeing models and scores; κ is weighted back to all answers of those models."
    table = comparison.agreement_table(judge_agreement(study))
    return _tabled("Agreement of people with the judges", table, note) if table[1] else None


def _tabled(label: str, table: comparison.Table, *notes: str) -> dict:
    return {"label": label, "table": table, "notes": notes}


def _by_prompt_group(facts: ReportFacts) -> list[tuple[str, comparison.Table]]:
    lists = read_groups(facts.study)
    speech = {name: speech_by_group(samples, lists) for name, samples in facts.samples.items()}
    metrics = comparison.with_speech(facts.metrics, speech)
    tables = [(m.title, comparison.group_table(metrics, m.key)) for m in comparison.METRICS if m.key in _OF_GROUPS]
    return [(title, table) for title, table in tables if table]


def _doses(facts: ReportFacts) -> dict | None:
    points = measured_points(facts.study)
    note = "Each model was made without the tokens above a threshold. An edited one was not trained."
    return _tabled("Models by tokens taken out", dose_table(points, facts.metrics), note) if len(points) > 1 else None


def _slides(facts: ReportFacts, pair: dict | None) -> list[dict]:
    if {BASE, DEFAULT} - facts.metrics.keys() or facts.example != DEFAULT or not facts.documents or not pair:
        return []
    points = measured_points(facts.study)
    return make_slides(facts.study, facts.metrics, facts.differences[DEFAULT], pair["models"], pair, points)


def _distributions(facts: ReportFacts) -> dict:
    names = list(facts.metrics)[:MODELS_MOST]
    figures = []
    for unit, title, rate in (
        ("completions", "All completions", itemgetter("toxicity")),
        ("prompts", "The most toxic completion of each prompt", highest_toxicity),
    ):
        values = {name: rate(facts.samples[name]).to_numpy() for name in names}
        shares = {name: comparison.toxicity_shares(v) for name, v in values.items()}
        caption = f"{title}. Rated {TOXIC_FROM} or more: {'; '.join(comparison.toxic_text(values, facts.edited))}."
        figures.append((toxicity_figure(shares, variant_colours(facts.metrics), unit, facts.edited), caption))
    note = f"The first {len(names)} of {len(facts.metrics)} models are drawn; the table above has all."
    return {"figures": figures, "notes": [note] if len(names) < len(facts.metrics) else []}


def _outcomes(facts: ReportFacts) -> dict | None:
    if not facts.outcomes:
        return None
    margin = number(next(iter(facts.outcomes.values())).margin, 2)
    note = f"By the highest toxicity among a prompt's completions; a difference of at most {margin} is a tie."
    colours = variant_colours(facts.metrics)
    table = comparison.outcome_table(facts.outcomes, facts.first, colours, facts.edited)
    return _tabled("Wins, ties and losses", table, note)


def _selections(facts: ReportFacts) -> dict:
    labels = ("Threshold", "Quantile", "Window", "Tokens", "Share", "Documents", "Precision", "Recall")
    notes = {"random": "the same number of tokens, drawn at random", "oracle": "the spans that people marked"}
    rows = []
    for selection in facts.selections:
        s, cut = selection.settings, ["–"] * 3
        note = notes.get(s["kind"], s["kind"])
        if s["kind"] == "influence":
            note = f"by {describe_kind(s['attribution']).title.lower()}"
            cut = [score(s["threshold"]), f"{s['quantile']:g}", count(s["window"])]
        cells = [
            [selection_title(selection.name), note, ""],
            *cut,
            count(s["n_selected"]),
            share(s["n_selected"], s["n_valid"]),
            count(s["n_documents_hit"]),
            *("–" if value is None else share(value) for value in (selection.precision, selection.recall)),
        ]
        rows.append({"cells": cells})
    note = "This corpus has no human labels, so precision and recall are unknown."
    if any(selection.precision is not None for selection in facts.selections):
        note = (
            "Precision: the share of selected tokens that people marked as toxic. Recall: the share of marked tokens"
            " that are selected. The labels only judge the selections; nothing that made them has seen the labels."
        )
    return _tabled("Selections", ([column("Selection", "titled"), *map(column, labels)], rows), note)


def _words(facts: ReportFacts) -> dict | None:
    if not facts.words:
        return None
    labels = ("Selected", "In the corpus", "Share", "Compared with all words")
    rows = [
        {"cells": [w.word, count(w.selected), count(w.occurrences), share(w.share), f"{w.lift:,.1f}×"]}
        for w in facts.words[:WORDS]
    ]
    note = (
        f"The {len(rows)} words with the most selected occurrences, of {count_of(len(facts.words), 'different word')},"
        f" by “{selection_title(facts.selection)}”. The last column: how many times likelier a word is selected"
        " than the average word."
    )
    return _tabled("Words selected most", ([column("Word", "veiled"), *map(column, labels)], rows), note)


def _groups(facts: ReportFacts) -> dict | None:
    if not facts.mentioned:
        return None
    note = (
        "A mention is a token of a word that names the group. Ratio: the share of mentions that"
        f" “{selection_title(facts.selection)}” selects, over the share of all tokens, with a 95% interval over"
        " documents. From 2× on, the selection may take what is said about a group, and not only what is toxic."
    )
    return _tabled("Groups mentioned", group_table(facts.mentioned), note)


def _sources(facts: ReportFacts) -> dict | None:
    note = "Ratio: the share of a source's tokens that is selected, over the share of all tokens, with a 95% interval."
    return _tabled("Sources", value_table("Source", facts.sources), note) if len(facts.sources) > 1 else None


def _documents(facts: ReportFacts) -> dict | None:
    if not facts.documents:
        return None
    middle, top = facts.scale
    note = (
        f"The {len(facts.documents)} best-ranked documents by “{selection_title(facts.selection)}”, each around its"
        f" strongest token. Orange: above the median score, strongest from {score(top)}; underlined: selected."
    )
    return {"notes": [note], "shown": [_document(document, middle, top) for document in facts.documents]}


def _document(document: ShownDocument, middle: float, top: float) -> dict:
    styles = []
    for value, selected, hidden in zip(document.scores, document.selected, document.hidden, strict=True):
        step = colour_step(max(0.0, float(value) - middle), top - middle)
        signs = {f"b{step + STEPS}": step, "sel": selected, "veil": hidden}
        styles.append(" ".join(sign for sign, on in signs.items() if on))
    pairs = zip(document.pieces, styles, strict=True)
    runs = [("".join(piece for piece, _ in run), style) for style, run in groupby(pairs, key=itemgetter(1))]
    return {"title": document.title, "about": document.about, "cut": document.cut, "runs": runs}


def colour_step(value: float, top: float) -> int:
    """Step −3 … 3 of a score's colour, as in the token viewer."""
    if not top > 0 or value == 0:
        return 0
    step = min(STEPS, int(min(1.0, abs(value) / top) * (STEPS + 0.5) + 0.5))
    return step if value > 0 else -step


def _examples(facts: ReportFacts) -> dict | None:
    name = facts.example
    if name is None:
        return None
    outcomes, pair = facts.outcomes[name], {n: facts.samples[n] for n in (facts.first, name)}
    note = (
        f"{variant_title(facts.first)} on the left, {variant_title(name, name in facts.edited)} on the right. Same"
        f" prompt and random seed on each row, and the {ROWS} rows with the highest toxicity for each prompt. Toxic"
        f" words are underlined; bold ratings are {TOXIC_FROM} or more."
    )
    sets = []
    for title, order, outcome in (("Largest drops", "drop", "less"), ("Largest rises", "rise", "more")):
        prompts = outcomes.prompts[outcomes.arrange(order, outcome)[:EXAMPLES]].tolist()
        shown = [side_by_side.prompt_payload(pair, prompt) for prompt in prompts]
        sets.append((title, [{**example, "rows": example["rows"][:ROWS]} for example in shown]))
    return {"notes": [note], "sets": sets}


def _settings(facts: ReportFacts) -> comparison.Table:
    sections = (
        (name, values) for name, values in config_to_dict(facts.study.config).items() if isinstance(values, dict)
    )
    settings = {f"{name}.{key}": value for name, values in sections for key, value in values.items()}
    return _pairs("Setting", "Value", {key: json.dumps(value, ensure_ascii=False) for key, value in settings.items()})


def _pairs(left: str, right: str, values: dict[str, str]) -> comparison.Table:
    rows = [{"cells": list(pair)} for pair in values.items()]
    return [column(left, "code"), column(right, "code")], rows


def _artefacts(facts: ReportFacts) -> dict:
    columns = [column("Artefact", "text"), column("Made", "text"), column("SHA-256 over its files' hashes", "code")]
    rows = []
    versions: dict[str, dict[str, None]] = {}
    inputs: dict[str, str] = {}
    for name, manifest in facts.manifests.items():
        made = datetime.fromtimestamp(manifest.get("created", 0), UTC)
        rows.append({"cells": [name, f"{made:%Y-%m-%d %H:%M}", artifacts.digest_of(manifest)]})
        for library, version in manifest.get("versions", {}).items():
            versions.setdefault(library, {})[version] = None
        inputs |= {k.removeprefix("file "): v for k, v in manifest["inputs"].items() if k.startswith("file ")}
    return {
        "artefacts": (columns, rows),
        "inputs": _pairs("File", "Hash", inputs),
        "versions": _pairs("Library", "Version", {library: ", ".join(used) for library, used in versions.items()}),
    }
