"""`ifguide judge`: rate a study's completions again by another judge, or fit a judge of one's own."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ifguide.cli.options import Answer
from ifguide.cli.running import follow_run, open_study
from ifguide.errors import InputError

FIT = "fit"


def judge(
    name: Annotated[str, Argument(metavar="NAME", help="Name of the study; `fit` fits a judge.")],
    file: Annotated[
        str | None, Argument(metavar="FILE", help="With `fit`: labelled texts.", show_default="none")
    ] = None,
    judge: Annotated[
        str, Option("--with", metavar="JUDGE", help="The judge, as for evaluate.scorer.", show_default="none")
    ] = "",
    labels: Annotated[
        str, Option(metavar="COLUMN", help="With `fit`: column with 1 or 0, true or false.", show_default="none")
    ] = "",
    text_field: Annotated[str, Option(metavar="COLUMN", help="With `fit`: column with the text.")] = "text",
    out: Annotated[
        Path | None, Option(metavar="FOLDER", help="With `fit`: where the judge goes.", show_default="judges/FILE")
    ] = None,
) -> Answer:
    """Rate completions again by another judge, or fit one.

    `ifguide judge NAME --with JUDGE` rates all measured models; without `--with` it shows what each judge said. No
    model of the study is loaded. `ifguide judge fit FILE --labels COLUMN` fits words and characters of labelled texts,
    and says how well it rates held-out ones; `--with judge:FOLDER` then uses it.
    """
    if name == FIT:
        return _fit(file, labels, text_field, out)
    if file or labels or out:
        raise InputError(
            f"judge: expected `ifguide judge fit FILE --labels COLUMN`, or NAME --with JUDGE, got {name!r}"
        )
    from ifguide.study.analysis.judges import by_judge, describe_disagreement

    study = open_study(name)
    if judge:
        from ifguide.study.analysis.judges import judge_study

        kind, _, place = judge.partition(":")
        here = Path(place.partition("#")[0]).expanduser()  # as typed, so from the folder of the terminal
        with follow_run("judge"):
            judge_study(study, f"{kind}:{Path(place).expanduser().absolute()}" if place and here.exists() else judge)
    figures, disagreement = by_judge(study), describe_disagreement(study)
    return Answer(
        {"study": name, "judges": figures, "disagreement": disagreement}, format_judges(figures, disagreement)
    )


def format_judges(figures: dict[str, dict[str, dict]], disagreement: list[str]) -> str:
    """EMT of each model by each judge with its interval, and where judges disagree."""
    from ifguide.cli.terminal import format_table

    rows = []
    for model in dict.fromkeys(model for models in figures.values() for model in models):
        values = [models.get(model, {}) for models in figures.values()]
        rows.append(
            (model, *(f"{v['emt']:.3f} [{v['emt_low']:.3f}, {v['emt_high']:.3f}]" if v else "" for v in values))
        )
    lines = [f"judges disagree: {sentence}" for sentence in disagreement]
    return "\n\n".join([format_table(("EMT by", *figures), rows), *lines])


def _fit(file: str | None, labels: str, text_field: str, out: Path | None) -> Answer:
    from ifguide.evaluation.judges.fitting import fit_judge

    if not file or not labels:
        raise InputError("judge fit: expected FILE --labels COLUMN, got neither or one of them")
    folder = out or Path("judges") / Path(file).name.partition(".")[0]
    with follow_run("judge"):
        fitted, measured = fit_judge(file, labels, folder, text=text_field)
    auc, ece = (f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high in (measured["auc"], measured["ece"]))
    text = (
        f"judge:{folder} ({fitted.digest}): on {measured['n_texts']:,} held-out texts, {measured['n_toxic']:,} of them"
        f" toxic, AUC {auc}, calibration error {ece}, as many flagged as are toxic from {measured['threshold'][0]:.3f}"
    )
    return Answer({"judge": f"judge:{folder}", "hash": fitted.digest, **measured}, text)


COMMANDS = (judge,)
