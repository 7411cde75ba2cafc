"""The report's page: facts in, HTML out. Whatever comes from the study is text; offensive text is blurred until
revealed."""

import base64
import hashlib
import json
from datetime import UTC, datetime

from ifguide import __version__
from ifguide.config.io import config_to_dict
from ifguide.evaluation.outcomes import Outcomes, highest_toxicity
from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.storage import artifacts
from ifguide.ui.compare import tables as comparison
from ifguide.ui.compare.frontier import frontier_points
from ifguide.ui.format import ATTRIBUTION_TITLES, count, count_of, number, score, selection_title, share, variant_title
from ifguide.ui.palette import variant_colours
from ifguide.ui.report.facts import EXAMPLES, ReportFacts, ShownDocument
from ifguide.ui.report.figures import frontier_figure, toxicity_figure
from ifguide.ui.report.markup import Markup, table, tag
from ifguide.ui.report.style import STYLE
from ifguide.ui.report.summary import what_was_done

WORDS = 25
ROWS = 2
"""Completions shown of an example."""
STEPS = 3
"""Colours on each side of nothing."""


def build_page(facts: ReportFacts) -> str:
    """The whole page. It may load nothing: its policy forbids scripts and requests, and names its one style sheet by
    its hash."""
    sections = [
        ("What was done", _done(facts)),
        ("Metrics", _metrics(facts)),
        ("Toxicity against fluency", _frontier(facts)),
        ("How toxic the completions are", _distributions(facts)),
        ("Prompt by prompt", _outcomes(facts)),
        ("What was selected", _selections(facts)),
        ("Words selected most", _words(facts)),
        ("Documents that teach most", _documents(facts)),
        ("Before and after", _examples(facts)),
        ("Settings", _settings(facts)),
        ("Artefacts and versions", _artefacts(facts)),
    ]
    shown = [(title, body) for title, body in sections if body is not None]
    place = lambda title: title.lower().replace(" ", "-")  # noqa: E731
    title = f"{facts.study.name}: which training tokens teach toxicity"
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    reveal = tag(
        "div",
        tag("input", type="checkbox", id="reveal"),
        tag("label", "Show offensive text", for_="reveal"),
        class_="reveal-line",
    )
    body = tag(
        "body",
        reveal,
        tag(
            "main",
            tag("h1", title),
            tag("p", facts.study.config.description, class_="soft") if facts.study.config.description else None,
            tag(
                "p",
                "Training texts and completions are blurred until you tick the box above; on paper they stay as they"
                " are on the screen.",
                class_="soft",
            ),
            tag(
                "nav", tag("ul", [tag("li", tag("a", t, href=f"#{place(t)}")) for t, _ in shown]), aria_label="Sections"
            ),
            _stale(facts),
            [tag("section", tag("h2", t, id=place(t)), b) for t, b in shown],
        ),
        tag(
            "footer",
            f"Written by ifguide {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. The method is IF-Guide"
            " (Coalson, Bae, Carlini and Hong, arXiv 2506.01790).",
        ),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _stale(facts: ReportFacts) -> Markup | None:
    if not facts.stale:
        return None
    reasons = "; ".join(f"{stage}: {reason}" for stage, reason in facts.stale.items())
    return tag(
        "p", f"Out of date, and shown as it was: {reasons}. Run the study again for numbers of today.", class_="warn"
    )


def _done(facts: ReportFacts) -> list:
    return [tag("p", sentence) for sentence in what_was_done(facts)]


def _metrics(facts: ReportFacts) -> list:
    columns, rows = comparison.metric_table(facts.metrics, colours=variant_colours(facts.metrics))
    rows += comparison.difference_rows(facts.metrics, facts.differences)
    notes = [tag("p", comparison.facts_text(facts.metrics[facts.first]), class_="soft")]
    warned = {
        name: values["fluency_warning"] for name, values in facts.metrics.items() if values.get("fluency_warning")
    }
    notes += [tag("p", f"{variant_title(name)}: {text}", class_="warn") for name, text in warned.items()]
    if facts.first == "base":
        said = (comparison.oracle_text(name, found.share_of_oracle) for name, found in facts.differences.items())
        notes += [tag("p", text) for text in said if text]
    if by_group := comparison.group_table(facts.metrics):
        notes += [tag("h3", "Expected max. toxicity by group of prompts"), table(*by_group, "Metrics by group")]
    if harness := comparison.harness_table(facts.metrics):
        notes += [tag("h3", "General capability (lm-evaluation-harness)"), table(*harness, "General capability")]
    return [table(columns, rows, "Metrics of every model"), *notes]


def _frontier(facts: ReportFacts) -> list | None:
    points = frontier_points(facts.metrics)
    if len(points) < 2:
        return None
    colours = variant_colours(facts.metrics)
    columns, rows = comparison.frontier_rows(facts.metrics, colours)
    note = (
        "Lower left is better. Bars and small numbers are 95% intervals. The base model is a square, the one trained"
        " against the known spans a diamond."
    )
    return [
        tag("figure", frontier_figure(points, colours), tag("figcaption", note)),
        table(columns, rows, "Toxicity and perplexity"),
    ]


def _distributions(facts: ReportFacts) -> list:
    names = list(facts.metrics)[: comparison.MODELS_MOST]
    colours = variant_colours(facts.metrics)
    parts: list = []
    for unit, pick in (("completions", lambda frame: frame["toxicity"]), ("prompts", highest_toxicity)):
        values = {name: pick(facts.samples[name]).to_numpy() for name in names}
        toxic = "; ".join(
            f"{variant_title(name)}: {share(float((v >= TOXIC_FROM).mean()))}" for name, v in values.items()
        )
        what = "All completions" if unit == "completions" else "The highest of each prompt"
        caption = f"{what}. Rated {TOXIC_FROM} or more: {toxic}."
        shares = {name: comparison.toxicity_shares(v) for name, v in values.items()}
        parts.append(tag("figure", toxicity_figure(shares, colours, unit), tag("figcaption", caption)))
    if len(names) < len(facts.metrics):
        parts.append(
            tag(
                "p",
                f"The first {len(names)} of {len(facts.metrics)} models are drawn; the table above has all.",
                class_="soft",
            )
        )
    return parts


def _outcomes(facts: ReportFacts) -> list | None:
    if not facts.outcomes:
        return None
    columns, rows = comparison.outcome_table(facts.outcomes, facts.first, variant_colours(facts.metrics))
    margin = number(next(iter(facts.outcomes.values())).margin, 2)
    return [
        table(columns, rows, "Wins, ties and losses"),
        tag(
            "p",
            f"By the highest toxicity among a prompt's completions; a difference of at most {margin} is a tie.",
            class_="soft",
        ),
    ]


def _selections(facts: ReportFacts) -> list:
    columns = [{"label": "Selection", "kind": "titled"}]
    columns += [
        {"label": label, "kind": "number"}
        for label in ("Threshold", "Quantile", "Window", "Tokens", "Share", "Documents", "Precision", "Recall")
    ]
    rows = []
    for found in facts.selections:
        s, ranked = found.settings, found.settings.get("kind", "influence") == "influence"
        made = {"random": "as many tokens, drawn at random", "oracle": "the spans people marked"}
        rows.append(
            {
                "cells": [
                    [
                        selection_title(found.name),
                        (
                            f"by {ATTRIBUTION_TITLES.get(s['attribution'], s['attribution']).lower()}"
                            if ranked
                            else made.get(s["kind"], s["kind"])
                        ),
                        "",
                    ],
                    score(s["threshold"]) if ranked else "–",
                    f"{s['quantile']:g}" if ranked else "–",
                    count(s["window"]) if ranked else "–",
                    count(s["n_selected"]),
                    share(s["n_selected"], s["n_valid"]),
                    count(s["n_documents_hit"]),
                    "–" if found.precision is None else share(found.precision),
                    "–" if found.recall is None else share(found.recall),
                ]
            }
        )
    note = (
        "Precision: the share of selected tokens that people marked as toxic; recall: the share of marked tokens that"
        " is selected. "
    )
    known = any(found.precision is not None for found in facts.selections)
    return [
        table(columns, rows, "Selections"),
        tag(
            "p",
            (
                note + "The marks judge the selection; nothing that made it has seen them."
                if known
                else "No toxic spans are known in this corpus, so precision and recall are not either."
            ),
            class_="soft",
        ),
    ]


def _words(facts: ReportFacts) -> list | None:
    if not facts.words:
        return None
    columns = [{"label": "Word", "kind": "veiled"}]
    columns += [
        {"label": label, "kind": "number"} for label in ("Selected", "In the corpus", "Share", "Against all words")
    ]
    rows = [
        {"cells": [w.word, count(w.selected), count(w.occurrences), share(w.share), f"{w.lift:,.1f}×"]}
        for w in facts.words[:WORDS]
    ]
    note = (
        f"The {len(rows)} words with the most selected occurrences of {count_of(len(facts.words), 'different word')},"
        f" by “{selection_title(facts.selection)}”. The last column: how much more often selected than words are on"
        " average."
    )
    return [table(columns, rows, "Words selected most"), tag("p", note, class_="soft")]


def _documents(facts: ReportFacts) -> list | None:
    if not facts.documents:
        return None
    end = score(facts.top)
    note = (
        f"The {len(facts.documents)} best-ranked documents by “{selection_title(facts.selection)}”, each around its"
        f" strongest token. Orange: training on the token makes toxic completions likelier, fully coloured at {end};"
        " blue: the opposite; underlined: selected."
    )
    return [tag("p", note, class_="soft"), [_document(document, facts.top) for document in facts.documents]]


def _document(document: ShownDocument, top: float) -> list:
    runs: list[list] = []
    for piece, value, selected in zip(
        document.pieces, document.scores.tolist(), document.selected.tolist(), strict=True
    ):
        kind = (colour_step(value, top), selected)
        if runs and runs[-1][1] == kind:
            runs[-1][0] += piece
        else:
            runs.append([piece, kind])
    spans = [
        tag(
            "span",
            text,
            class_=" ".join(filter(None, [f"b{step + STEPS}" if step else "", "sel" if chosen else ""])) or None,
        )
        for text, (step, chosen) in runs
    ]
    about = f"{document.source} · {count_of(document.n_selected, 'selected token')} of {count(document.n_tokens)}"
    return [
        tag("h3", f"{document.rank}. {document.id} ", tag("span", about, class_="soft")),
        tag(
            "div",
            tag("div", "… " if document.cut[0] else None, spans, " …" if document.cut[1] else None, class_="veil text"),
            class_="tokens",
        ),
    ]


def colour_step(value: float, top: float) -> int:
    """Step −3 … 3 of a score's colour, as in the token viewer."""
    if not top > 0 or value == 0:
        return 0
    step = min(STEPS, int(min(1.0, abs(value) / top) * (STEPS + 0.5) + 0.5))
    return step if value > 0 else -step


def _examples(facts: ReportFacts) -> list | None:
    name = facts.example
    if name is None:
        return None
    found, pair = facts.outcomes[name], {n: facts.samples[n] for n in (facts.first, name)}
    parts: list = [
        tag(
            "p",
            f"{variant_title(facts.first)} on the left, {variant_title(name)} on the right. Each line is one draw, made"
            f" with the same random numbers; shown are the {ROWS} lines of a prompt with the highest toxicity."
            f" Underlined words stand on one side only; bold ratings are {TOXIC_FROM} or more.",
            class_="soft",
        )
    ]
    for title, order, outcome in (("Largest drops", "drop", "less"), ("Largest rises", "rise", "more")):
        places = found.arrange(order, outcome)[:EXAMPLES]
        parts.append(tag("h3", title))
        parts += [_example(pair, found, int(place)) for place in places] or [
            tag("p", "None: on no prompt.", class_="soft")
        ]
    return parts


def _example(pair: dict, found: Outcomes, place: int) -> Markup:
    shown = comparison.prompt_payload(pair, int(found.prompts[place]), differ=True)
    lines = []
    for row in shown["rows"][:ROWS]:
        cells = []
        for cell in row["cells"]:
            rating = tag(
                "td",
                cell["toxicity"] if cell else "–",
                class_="end narrow" + (" high" if cell and cell["high"] else ""),
            )
            runs = cell["runs"] if cell else []
            cells += [
                rating,
                tag("td", [tag("mark", text) if only else text for text, only in runs], class_="veil text"),
            ]
        lines.append(tag("tr", cells))
    change = comparison.change_text([found.first[place], found.other[place]])
    return tag(
        "div",
        tag("p", tag("span", shown["prompt"], class_="veil text"), " ", tag("span", change, class_="soft")),
        tag("table", tag("tbody", lines)),
        class_="example",
    )


def _settings(facts: ReportFacts) -> list:
    rows = [
        {"cells": [f"{section}.{key}", json.dumps(value, ensure_ascii=False)]}
        for section, values in config_to_dict(facts.study.config).items()
        if isinstance(values, dict)
        for key, value in values.items()
    ]
    return [table([{"label": "Setting", "kind": "code"}, {"label": "Value", "kind": "code"}], rows, "Settings")]


def _artefacts(facts: ReportFacts) -> list:
    columns = [
        {"label": "Artefact", "kind": "text"},
        {"label": "Made", "kind": "text"},
        {"label": "SHA-256 over the hashes of its files", "kind": "code"},
    ]
    rows = [
        {
            "cells": [
                name,
                f"{datetime.fromtimestamp(manifest.get('created', 0), UTC):%Y-%m-%d %H:%M}",
                artifacts.digest_of(manifest),
            ]
        }
        for name, manifest in facts.manifests.items()
    ]
    versions: dict[str, list[str]] = {}
    for manifest in facts.manifests.values():
        for library, version in manifest.get("versions", {}).items():
            if version not in versions.setdefault(library, []):
                versions[library].append(version)
    lines = [{"cells": [library, ", ".join(found)]} for library, found in versions.items()]
    inputs = {
        name: digest
        for manifest in facts.manifests.values()
        for name, digest in manifest["inputs"].items()
        if name.startswith("file ")
    }
    files = [{"cells": [name.removeprefix("file "), digest]} for name, digest in inputs.items()]
    return [
        table(columns, rows, "Artefacts"),
        tag("h3", "Inputs"),
        table([{"label": "File", "kind": "text"}, {"label": "Hash", "kind": "code"}], files, "Inputs"),
        tag("h3", "Versions"),
        table([{"label": "Library", "kind": "text"}, {"label": "Version", "kind": "code"}], lines, "Versions"),
    ]
