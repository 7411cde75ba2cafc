"""A person as judge: completions to rate without knowing who wrote them, and how far each judge agrees with a person.

The ratings are a verdict log of their own in the study's folder, `ratings.jsonl`. Its targets are completions:
`MODEL/PROMPT/SAMPLE/HASH`, with a hash of prompt and completion, so that a model's later completions are not rated yet.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.selection.audit import Agreement, draw_in_turn, weighted_kappa
from ifguide.selection.verdicts import RATINGS, VerdictLog
from ifguide.storage.artifacts import hash_json
from ifguide.study.reading import Study

if TYPE_CHECKING:
    import pandas as pd

SIZE = 60
"""Completions in a rating task."""


def list_answers(study: Study, models: Collection[str]) -> "pd.DataFrame":
    """All completions of some models: model, prompt, completion, the `id` of each as a target, and the number of its
    `stratum`: its model, and whether the study's own judge calls it toxic."""
    import pandas as pd

    own = study.judged("")
    answers = pd.concat({name: own.samples(name) for name in models}, names=["model"]).reset_index("model")
    parts = (answers[name] for name in ("model", "prompt_index", "sample_index", "prompt", "completion"))
    ids = [
        f"{model}/{prompt}/{sample}/{hash_json([asked, answer])[:12]}"
        for model, prompt, sample, asked, answer in zip(*parts, strict=True)
    ]
    stratum = answers.groupby(["model", answers["toxicity"] >= TOXIC_FROM]).ngroup()
    return answers.assign(id=ids, stratum=stratum)[["model", "prompt", "completion", "id", "stratum"]]


def draw_answers(study: Study, models: Collection[str], seed: int, n: int = SIZE) -> "pd.DataFrame":
    """`n` completions to rate, in the order of rating, as `list_answers`: in turn from every model what the study's own
    judge calls toxic and what it does not. The same seed, models and completions give the same ones."""
    answers = list_answers(study, sorted(models))
    return answers.iloc[draw_in_turn([*answers.groupby("stratum").indices.values()], n, seed)]


def judge_agreement(study: Study) -> list[Agreement]:
    """How far each person who rated completions agrees with each judge that rated the same models; `unsure` is left
    out. `reviewers` are the person, empty for one without a name, and the judge by its name and hash. κ is weighted
    back to all completions of the models of which the person rated toxic and other ones, as far as there are both."""
    log, own, found = VerdictLog(study.root, RATINGS), study.judged(""), []
    for person in sorted(log.reviewers()):
        given = {id: verdict == "toxic" for id, verdict in log.of_documents(person).items() if verdict != "unsure"}
        names = [name for name in own.evaluation_names() if any(id.startswith(f"{name}/") for id in given)]
        if not names:
            continue
        answers = list_answers(own, names)
        rated = answers["id"].isin(given)
        whole = rated.groupby(answers["stratum"]).transform("any").groupby(answers["model"]).transform("all").to_numpy()
        if not whole.any():
            continue
        answers, rated = answers[whole], rated[whole].to_numpy()
        says, strata = (
            answers["id"][rated].map(given).to_numpy(dtype=int),
            answers.groupby("stratum").ngroup().to_numpy(),
        )
        for by in (own, *map(own.judged, own.judgements())):
            if not {*answers["model"]} <= {*by.evaluation_names()}:
                continue
            toxicity = np.concatenate([by.samples(name)["toxicity"].to_numpy() for name in names])
            calls = (toxicity[whole] >= TOXIC_FROM).astype(int)[rated]
            counts = np.zeros((strata.max() + 1, 2, 2), dtype=np.int64)
            np.add.at(counts, (strata[rated], calls, says), 1)
            kappa = weighted_kappa(counts, np.bincount(strata))
            pair, same = (person, by.judge_title()), int((calls == says).sum())
            value, bounds = (kappa.value, (kappa.low, kappa.high)) if kappa else (None, None)
            found.append(Agreement(pair, len(says), same, value, bounds))
    return found
