"""`ifguide likelihood`: how likely models find each other's completions of a prompt."""

from typing import Annotated

import typer

from ifguide.cli.options import StatusFile, StudyName
from ifguide.cli.running import follow_run, open_study


def likelihood(
    name: StudyName,
    prompt: Annotated[int, typer.Option(min=0, help="Number of the prompt, from 0.")],
    models: Annotated[
        str, typer.Option(metavar="MODEL,...", help="Two to four evaluated models, separated by commas.")
    ],
    status_file: StatusFile = None,
) -> None:
    """Compute how likely models find each other's completions.

    Prints the mean log-probability of the tokens of one prompt's completions under each model.
    """
    from ifguide.study.analysis.likelihood import compute_likelihoods

    study = open_study(name)
    with follow_run(status_file) as progress:
        progress.begin_stage("likelihood", 0, 1)
        found = compute_likelihoods(study, prompt, [m.strip() for m in models.split(",") if m.strip()], progress)
    for writer in found["models"]:
        mine = [c["log_probability"] for c in found["completions"] if c["model"] == writer and c["pieces"]]
        tokens = sum(len(values[writer]) for values in mine)
        means = {m: sum(map(sum, (values[m] for values in mine))) / max(tokens, 1) for m in found["models"]}
        shown = ", ".join(f"{m} {value:.3f}" for m, value in means.items())
        print(f"{writer}'s {tokens:,} tokens, mean log-probability: {shown}")
