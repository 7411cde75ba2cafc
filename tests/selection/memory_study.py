"""A study in memory, as much of it as the index reads, and the slow reference's answer for it."""

import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from ifguide.config.schema import SelectionConfig
from ifguide.data.stretches import find_edges
from ifguide.selection.index.build import build_index
from ifguide.study.stages.select import open_index
from tests import reference

PIECES = ["", " fool", "Fool", "kind", "!", "ly", "\ufffd"]


class MemoryStudy:
    """As much of a study as the index reads: a made-up corpus with scores, two sources and spans."""

    name = "made-up"
    config = SimpleNamespace(selection=SelectionConfig(attribution="own_loss"))

    def __init__(self, folder, seed, *, n_documents=None, lengths=(0, 1, 2, 3, 5, 9, 17), style=None):
        draw = self.draw = np.random.default_rng(seed)
        n_documents = n_documents or int(draw.integers(1, 25))
        own = draw.choice(lengths, size=n_documents)
        own[draw.integers(n_documents)] = draw.integers(2, 40)
        self.offsets = np.concatenate([[0], np.cumsum(own)]).astype(np.int64)
        n_tokens = int(self.offsets[-1])
        scores = draw.normal(draw.choice([-3.0, 0.0, 2.0]), draw.choice([0.01, 1.0, 1e4]), size=n_tokens)
        style = style or draw.choice(["exact", "rounded", "few values", "heavy tail"])
        scores = {
            "exact": scores,
            "rounded": scores.round(1),
            "few values": draw.integers(-1, 3, size=n_tokens),
            "heavy tail": draw.standard_t(1.5, size=n_tokens),
        }[style]
        self.values = np.asarray(scores, dtype=np.float32)  # first tokens have scores too: they must not count
        self.valid = np.ones(n_tokens, dtype=bool)
        self.valid[self.offsets[:-1][own > 0]] = False
        self.trained = None
        if seed % 3 == 1:  # only some stretches are trained on, as in a chat
            other = np.random.default_rng(seed)
            kept = self.valid & np.repeat(other.random(n_tokens) < 0.6, other.integers(1, 6, size=n_tokens))[:n_tokens]
            if kept.any():
                self.valid, self.trained = kept, find_edges(kept)
        self.ids = [f"{draw.choice(['a', 'B', 'é', '文', '10', '9'])}-{i}" for i in range(n_documents)]
        draw.shuffle(self.ids)
        self.sources = draw.choice(["forum", "news"], size=n_documents)
        self.in_span = draw.random(n_tokens) < 0.2
        self.token_ids = draw.integers(0, len(PIECES), size=n_tokens).astype(np.int32)
        self.root = folder

    def build(self, **settings):
        folder = self.folder("index") / "own_loss"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        build_index(folder, self.values, self.corpus(), PIECES, **settings)
        return open_index(self)

    def manifest(self, unit):
        return {}

    def folder(self, unit):
        return self.root / "index"

    def scores(self, kind):
        return self.values

    def corpus(self):
        ranks = sorted(self.ids)
        id_rank = np.array([ranks.index(name) for name in self.ids], dtype=np.int64)
        return SimpleNamespace(
            n_tokens=len(self.values),
            n_documents=len(self.ids),
            offsets=self.offsets,
            in_span=self.in_span,
            trained=self.trained,
            token_ids=self.token_ids,
            id_rank=id_rank,
            column=lambda name: pa.chunked_array([self.sources.tolist()]),
        )

    def random_settings(self):
        draw, n_tokens = self.draw, len(self.values)
        quantile = draw.choice([1e-9, 0.5, 0.9, 0.93, 0.99, draw.uniform(0.9, 1), draw.uniform(0.9, 1), draw.random()])
        budget = draw.choice([0, 1, draw.integers(1, n_tokens + 2), draw.integers(1, max(2, n_tokens // 8))])
        return {"quantile": float(quantile), "window": int(draw.choice([0, 0, 1, 2, 5, 8])), "max_tokens": int(budget)}


def slow_answer(study, settings):
    scores, offsets, valid = study.values.tolist(), study.offsets.tolist(), study.valid.tolist()
    threshold = reference.threshold_at_quantile(scores, valid, settings["quantile"])
    counts, sums, rank_scores, order = reference.rank_documents(scores, offsets, valid, threshold, study.ids)

    def take(budget):
        return reference.select_tokens(scores, offsets, valid, threshold, order, settings["window"], budget)

    return threshold, counts, sums, rank_scores, order, take(settings["max_tokens"]), take(0)
