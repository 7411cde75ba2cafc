"""`ifguide suggest`: toxic and safe queries from files and verdicts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from ifguide.cli.options import Answer, split_names
from ifguide.cli.running import follow_run, open_study
from ifguide.errors import ConfigError

if TYPE_CHECKING:
    import pandas

_FROM = "Rows of RealToxicityPrompts, toxic sentences with neutral rewrites, or labelled texts."
_STUDY = "Take the reviewer's verdicts of this study instead."
_LABELS = "Columns of a text and its label: 0, 1, true, false or a score."


def suggest(
    out: Annotated[Path, Option(metavar="FOLDER", help="Where toxic.jsonl and safe.jsonl go.")],
    source: Annotated[str, Option("--from", metavar="FILE", help=_FROM, show_default="")] = "",
    study: Annotated[str, Option(metavar="NAME", help=_STUDY, show_default="")] = "",
    labels: Annotated[str, Option(metavar="TEXT,LABEL", help=_LABELS)] = "text,label",
    toxic_min: Annotated[float, Option(help="A score from here on is toxic.")] = 0.5,
    safe_max: Annotated[float, Option(help="A score below this is safe.")] = 0.25,
    force: Annotated[bool, Option("--force", help="Replace files that are there.")] = False,
    reveal: Annotated[bool, Option("--reveal", help="Print offensive words, too.")] = False,
) -> Answer:
    """Make queries from a file, or from verdicts.

    Prints how similar the two sets are, and warns if their topics differ: scores would then find topics.
    """
    from ifguide.config.schema import QueriesConfig
    from ifguide.data.queries import KINDS
    from ifguide.data.query_sources import make_sets, read_query_sets
    from ifguide.study.analysis.verdict_queries import read_verdicts

    if bool(source) == bool(study):
        raise ConfigError(f"expected either --from FILE or --study NAME, got {'both' if study else 'neither'}")
    if there := [name for kind in KINDS if (out / (name := f"{kind}.jsonl")).exists() and not force]:
        remedy = "name another one, or replace them with --force"
        raise ConfigError(f"--out: expected no queries in {out}, got {' and '.join(there)}; {remedy}")
    with follow_run("suggest"):
        if study:
            queries = make_sets(read_verdicts(open_study(study)), f"the verdicts of study {study!r}")
        else:
            queries = read_query_sets(
                source, QueriesConfig(toxic_min=toxic_min, safe_max=safe_max), split_names(labels)
            )
        out.mkdir(parents=True, exist_ok=True)
        files: dict = {}
        for kind in KINDS:
            rows = queries.loc[queries["kind"] == kind, ["prompt", "completion"]]
            rows.to_json(out / f"{kind}.jsonl", orient="records", lines=True, force_ascii=False)
            words = rows["completion"].str.split().str.len().median()
            files[kind] = {"file": str(out / f"{kind}.jsonl"), "queries": len(rows), "median_words": float(words)}
        likeness = _describe_likeness(queries, reveal)
    lines = [
        f"{one['file']}: {one['queries']:,} queries, {one['median_words']:g} words in the median completion"
        for one in files.values()
    ]
    left_out = queries.attrs["left_out"]
    text = "\n".join(filter(None, [*lines, f"left out: {left_out}", *likeness.values()]))
    return Answer({**files, "left_out": left_out, **likeness}, text)


def _describe_likeness(queries: "pandas.DataFrame", reveal: bool) -> dict[str, str]:
    """How well words other than the toxic ones tell the sets apart, and a warning if they do; empty otherwise."""
    from ifguide.cli.terminal import printable
    from ifguide.evaluation.query_likeness import TOPIC_AUC, compare_topics

    if (likeness := compare_topics(queries)) is None:
        return {"topics": "too few prompts or words to tell whether the sets have the same topics", "warning": ""}
    (auc, words), warning = likeness, ""
    if auc >= TOPIC_AUC:
        shown = ", ".join(f"{word if reveal or not veil else word[0] + '…'} ({kind})" for word, kind, veil in words)
        warning = f"warning: the sets have different topics, and scores would find those: {printable(shown)}"
    return {
        "topics": f"a bag of words without the toxic ones tells the sets apart with AUC {auc:.2f}",
        "warning": warning,
    }


COMMANDS = (suggest,)
