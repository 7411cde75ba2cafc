"""Before and after on the demo, beside every other method: the table, the bars, the frontier.

    python -m benchmarks.before_after [--study demo] [--epochs 20] [--with all] [--svg docs/results/frontier.svg]

Builds the study if it is missing, trains and measures what `ifguide compare` knows (half a minute a model on two cores;
what is up to date is not trained again; `--epochs` is the demo with nothing but a longer training, as a study of its
own), prints the table in Markdown and the bars, each with what was measured, and draws expected maximum toxicity
against perplexity. An interval is a 95% bootstrap interval over prompts.
"""

import argparse
import dataclasses
from pathlib import Path

from ifguide.cli.train import choose
from ifguide.config.names import BASE, DEFAULT
from ifguide.runtime.progress import Progress
from ifguide.study.analysis.comparison import compare_variants, comparison_table
from ifguide.study.demo import build_demo, demo_config, write_inputs
from ifguide.study.folder import cache_dir, list_studies
from ifguide.study.pipeline import compare, run_study
from ifguide.study.reading import Study
from ifguide.study.variants import METHODS
from ifguide.ui.compare.frontier import frontier_points
from ifguide.ui.palette import variant_colours
from ifguide.ui.report.figures import frontier_figure


@dataclasses.dataclass(frozen=True)
class Bars:
    """What has to be reached."""

    perplexity: float
    """Highest rise to the base model's."""
    of_span_mask: float | None = None
    """Least share of the drop in EMT that the known spans' mask reaches."""
    of_base: float | None = None
    """Highest EMT as a share of the base model's."""
    apart: tuple[str, ...] = ()
    """Methods whose interval of EMT must not overlap ours."""


DEMO = Bars(perplexity=0.02, of_span_mask=0.95, apart=("random", "loss-difference", "last-position"))
REAL_TEXT = Bars(perplexity=0.05, of_base=0.5)
NOT_RIVALS = (BASE, DEFAULT, "oracle", *METHODS)
"""The base model, ours, what labels reach, and our own selection trained in other ways."""
OTHER_MEANS = ("words", "classifier-tokens", "classifier-documents")
"""Methods that use a classifier somebody trained on labels; on the demo it is the very one that rates the completions.
"""


def main() -> None:
    """Train what is missing; print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--epochs", type=int, help="passes that the demo's models are trained for")
    parser.add_argument("--with", dest="others", default="all", help="as for `ifguide compare`")
    parser.add_argument("--real", action="store_true", help="hold the figures against the bars for real text")
    parser.add_argument("--svg", type=Path, help="draw the frontier into this file")
    options = parser.parse_args()
    if options.epochs:
        study = build_longer(options.epochs)
    else:
        study = build_demo() if options.study == "demo" else Study.open(options.study)
    names = [BASE, DEFAULT, *choose(study, options.others)]
    compare(study, names, progress=Progress())
    print(comparison_table(study, names))
    print_bars(study, names, REAL_TEXT if options.real else DEMO)
    if options.svg:
        metrics = {name: study.metrics(name) for name in names}
        drawn = frontier_figure(frontier_points(metrics), variant_colours(names))
        options.svg.write_text(alone(drawn), encoding="utf-8")


def build_longer(epochs: int) -> Study:
    """The demo, trained longer; the same checkpoints are asked, and all other settings are the demo's."""
    name = f"demo-epochs-{epochs}"
    if name not in list_studies():
        write_inputs(cache_dir() / name / "inputs")
        config = demo_config()
        Study.create(name, dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=epochs)))
    study = Study.open(name)
    run_study(study, progress=Progress())
    return study


def alone(picture: str) -> str:
    """A report's picture as a file of its own: with a name space, a size, and the styles that the report's page has."""
    style = (
        "<style>text{fill:#1f2933;font:13px sans-serif}.tick{fill:#55606e;font-size:12px}.axis,.leader{stroke:#8b95a1}"
        ".grid{stroke:#dde2e8}.name{paint-order:stroke;stroke:#fff;stroke-width:4px}</style>"
    )
    head, rest = picture.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" style="background:#fff">{style}{rest}\n'


def print_bars(study: Study, names: list[str], bars: Bars) -> None:
    """What was reached, part by part, in Markdown."""
    metrics = {name: study.metrics(name) for name in names}
    samples, heldout = ({name: read(name) for name in names} for read in (study.samples, study.heldout_losses))
    compared = {c.variant: c for c in compare_variants(samples, heldout=heldout)}
    ours = compared[DEFAULT]
    change = metrics[DEFAULT]["perplexity"] / metrics[BASE]["perplexity"] - 1
    rise = ours.perplexity_rise
    bounds = f" [{rise.low:+.1%}, {rise.high:+.1%}]" if rise else ""
    rows = []
    if bars.of_base is not None:
        share = metrics[DEFAULT]["emt"] / metrics[BASE]["emt"]
        rows.append(("EMT as a share of the base model's", f"{share:.3f}", f"<= {bars.of_base}", share <= bars.of_base))
    if bars.of_span_mask is not None and ours.share_of_oracle is not None:
        share = ours.share_of_oracle
        rows.append(
            (
                "share of the span mask's drop in EMT",
                f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]",
                f">= {bars.of_span_mask}",
                share.value >= bars.of_span_mask,
            )
        )
    rows.append(
        ("perplexity to base", f"{change:+.1%}{bounds}", f"<= {bars.perplexity:+.0%}", change <= bars.perplexity)
    )
    mine = metrics[DEFAULT]
    for name in names:
        if name in NOT_RIVALS:
            continue
        other = metrics[name]
        ahead = mine["emt"] < other["emt"]
        kind = "uses a classifier" if name in OTHER_MEANS else "no labels"
        rows.append((f"EMT below that of {name} ({kind})", f"{mine['emt']:.3f} to {other['emt']:.3f}", "below", ahead))
    for name in bars.apart:
        if name in names:
            other = metrics[name]
            shown = f"{mine['emt_high']:.3f} to {other['emt_low']:.3f}"
            rows.append((f"intervals of EMT apart from {name}'s", shown, "below", mine["emt_high"] < other["emt_low"]))
    print("\n| bar | measured | wanted | held |\n|---|---|---|---|")
    for what, measured, wanted, held in rows:
        print(f"| {what} | {measured} | {wanted} | {'yes' if held else 'NO'} |")


if __name__ == "__main__":
    main()
