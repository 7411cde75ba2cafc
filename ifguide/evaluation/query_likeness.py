"""How alike two query sets are apart from toxicity. The direction also follows anything else that sets them apart."""

import numpy as np

from ifguide.data.words import split_words
from ifguide.evaluation.judges.linear import built_in
from ifguide.evaluation.statistics import TOXIC_FROM

VEIL_FROM = 0.2
"""A word that the classifier gives this much by itself is not printed."""
TOPIC_AUC = 0.7
"""From here on the sets are about different things."""
N_FOLDS, N_WORDS = 5, 10


def compare_topics(queries) -> tuple[float, list[tuple[str, str, bool]]] | None:
    """How well a bag of words tells the sets of a frame (`kind`, `prompt`, `completion`) apart by topic. Words that are
    toxic alone (by the built-in judge) and stop words do not count. Returns the AUC over held-out prompts,
    and the most telling words, each with the kind it speaks for and whether to veil it; None for too few prompts or
    words."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.preprocessing import normalize

    prompts, toxic = queries["prompt"].factorize()[0], (queries["kind"] == "toxic").to_numpy()
    folds = (np.random.default_rng(0).permutation(prompts.max() + 1) % N_FOLDS)[prompts]
    if prompts.max() < 4 * N_FOLDS or min(len(set(folds[toxic])), len(set(folds[~toxic]))) < 2:
        return None
    bag = TfidfVectorizer(analyzer=split_words, norm=None)
    every = bag.fit_transform(queries["prompt"] + queries["completion"])
    names = bag.get_feature_names_out()
    alone = built_in().score(names.tolist())
    says = np.array([len(name) > 1 and name not in ENGLISH_STOP_WORDS for name in names])
    topical = says & (every.getnnz(axis=0) > 1) & (alone < TOXIC_FROM)
    if not topical.any():
        return None
    model, cv = LogisticRegression(C=10, class_weight="balanced", max_iter=1000), PredefinedSplit(folds)
    table = normalize(every[:, topical])  # only now: the weight of a removed word must not show in the rest
    held_out = cross_val_predict(model, table, toxic, cv=cv, method="decision_function")
    names, alone = names[topical], alone[topical]
    weights = model.fit(table, toxic).coef_[0] * np.asarray(table.mean(axis=0)).ravel()
    first = np.argsort(-np.abs(weights), kind="stable")[:N_WORDS]
    words = [(str(names[i]), "toxic" if weights[i] > 0 else "safe", bool(alone[i] >= VEIL_FROM)) for i in first]
    return float(roc_auc_score(toxic, held_out)), words
