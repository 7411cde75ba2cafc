"""A person as judge: completions to rate without knowing who wrote them, and how far each judge agrees with a person.

The ratings are a verdict log of their own in the study's folder, `ratings.jsonl`. Its targets are completions:
`MODEL/PROMPT/SAMPLE/HASH`, with a hash of prompt and completion, so that a model's later completions are not rated yet.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd

from ifguide.evaluation.statistics import TOXIC_FROM
from ifguide.selection.audit import Agreement, draw_in_turn, weighted_kappa
from ifguide.selection.verdicts import RATINGS, VerdictLog
from ifguide.storage.artifacts import hash_json
from ifguide.study.reading import Study

SIZE = 60
"""Completions in a rating task."""


def list_answers(study: Study, models: Collection[str]) -> pd.DataFrame:
    """The samples of some models, with model, the `id` of each completion as a target, and the number of its `stratum`:
    its model, and whether the study's own judge calls it toxic."""
    frames = {name: study.judged("").samples(name) for name in models}
    answers = pd.concat(frames, names=["model"]).reset_index("model")
    ids = [
        f"{row.model}/{row.prompt_index}/{row.sample_index}/{hash_json([row.prompt, row.completion])[:12]}"
        for row in answers.itertuples()
    ]
    stratum = answers.groupby(["model", answers["toxicity"] >= TOXIC_FROM]).ngroup()
    return answers.assign(id=ids, stratum=stratum)


def draw_answers(study: Study, models: Collection[str], seed: int, n: int = SIZE) -> pd.DataFrame:
    """`n` completions to rate, in the order of rating, as `list_answers`: in turn from every model what the study's own
    judge calls toxic and what it does not. The same seed, models and completions give the same ones."""
    answers = list_answers(study, sorted(models))
    return answers.iloc[draw_in_turn([*answers.groupby("stratum").indices.values()], n, seed)]


def judge_agreement(study: Study) -> list[Agreement]:
    """How far each person who rated completions agrees with each judge that rated the same models; `unsure` is left
    out. `reviewers` are the person, empty for one without a name, and the judge by its name and hash. κ is weighted
    back to all completions of the models of which the person rated toxic and other ones, as far as there are both."""
    log, own, agreements = VerdictLog(study.root, RATINGS), study.judged(""), []
    for person in sorted(log.reviewers()):
        given = {id: verdict == "toxic" for id, verdict in log.of_documents(person).items() if verdict != "unsure"}
        names = [name for name in own.evaluation_names() if any(id.startswith(f"{name}/") for id in given)]
        if not names:
            continue
        answers = list_answers(own, names)
        answers["says"] = answers["id"].map(given)
        whole = answers.groupby("stratum")["says"].transform("count").groupby(answers["model"]).transform("min") > 0
        kept = (whole & answers["says"].notna()).to_numpy()
        says = answers["says"][kept].to_numpy(int)
        strata, sizes = np.unique(answers["stratum"][whole], return_counts=True)
        for by in (own, *map(own.judged, own.judgements())):
            if not len(says) or not {*answers["model"][whole]} <= {*by.evaluation_names()}:
                continue
            toxicity = np.concatenate([by.samples(name)["toxicity"].to_numpy() for name in names])
            calls, counts = (toxicity[kept] >= TOXIC_FROM).astype(int), np.zeros((len(sizes), 2, 2), dtype=np.int64)
            np.add.at(counts, (np.searchsorted(strata, answers["stratum"][kept]), calls, says), 1)
            kappa, same = weighted_kappa(counts, sizes), int((calls == says).sum())
            value, bounds = (kappa.value, (kappa.low, kappa.high)) if kappa else (None, None)
            agreements.append(Agreement((person, by.judge_title()), len(says), same, value, bounds))
    return agreements
