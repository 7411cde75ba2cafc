"""A step of a datatrove pipeline that scores documents where they are, for a study to gather.

    from datatrove.executor import SlurmPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from ifguide.study.sharing.datatrove import TokenScores

    SlurmPipelineExecutor(
        pipeline=[ParquetReader("corpus/"), TokenScores("NAME"), ParquetWriter("scores/", expand_metadata=True)],
        tasks=64, time="12:00:00", partition="gpu", logging_dir="logs/",
    ).run()

Each task needs the study's model, direction and tokenizer, and nothing of the other tasks; datatrove notes which are
complete and starts the others again. The study whose corpus these documents are then reads the scores back with
`ifguide select NAME --scores scores/`; with `--out masks/` tokens are selected where the scores are. Needs the package
datatrove: `pip install "ifguide[datatrove]"`.
"""

from itertools import islice
from pathlib import Path

import numpy as np
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from ifguide.data.packing import chunk_documents
from ifguide.data.tokenizing import tokenize
from ifguide.errors import ConfigError
from ifguide.influence.attribution import score_corpus
from ifguide.influence.batches import CorpusSequences, make_batches
from ifguide.study.reading import Study
from ifguide.study.stages.attributions import Place, Scorer, make_scorer
from ifguide.study.stages.checkpoints import read_layout, study_tokenizer
from ifguide.study.stages.scoring import require_ready


class TokenScores(PipelineStep):
    """Gives each document its `scores`: for each scoring checkpoint a list of raw numbers, one a token, 0 for the first
    token, which nothing predicts. And its `token_ids`, and its `document_id`, under which the study knows it."""

    name, type = "token scores", "INFLUENCE"

    def __init__(self, study: str, kind: str = "own_loss", cache: str = "", documents_at_once: int = 256):
        """
        Args:
            study: its name. It must be built up to its direction; a small corpus is enough for that.
            kind: a kind of scores that is computed from the model, such as `own_loss` or `probe`.
            cache: the folder of studies; empty: the usual one.
            documents_at_once: documents that are divided into batches together.
        """
        super().__init__()
        self.study, self.kind, self.cache, self.documents_at_once = study, kind, cache, documents_at_once

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Score one task's documents. A StaleError: the study is not built up to its direction; a ConfigError: its
        documents are conversations or run together."""
        study = Study.open(self.study, Path(self.cache) if self.cache else None)
        require_ready(study)
        if study.corpus().is_chat or study.corpus().is_joined:
            raise ConfigError(f"study {study.name!r}: expected documents of plain text that are not run together")
        scorers = [make_scorer(self.kind, Place(study=study, checkpoint=name)) for name in study.checkpoint_names()]
        documents, tokenizer, layout = iter(data), study_tokenizer(study), read_layout(study)
        while some := list(islice(documents, self.documents_at_once)):
            with self.track_time("documents"):
                self.score(some, scorers, tokenizer, layout, study.config.compute.tokens_per_batch)
            yield from some

    def score(self, documents: list[Document], scorers: list[Scorer], tokenizer, layout: dict, tokens: int) -> None:
        """Put the scores of some documents into their metadata; `layout` is the corpus's, `tokens` those of a batch."""
        encoded = [text.token_ids for text in tokenize(tokenizer, [document.text for document in documents])]
        offsets, ids = np.cumsum([0, *map(len, encoded)]), np.concatenate(encoded)
        chunks = chunk_documents(offsets, layout["max_length"] - (layout["bos"] is not None))
        scores = [{name: np.zeros(len(ids), dtype=np.float32) for name in scorer.files} for scorer in scorers]
        for scorer, values in zip(scorers, scores, strict=True):
            batches = make_batches(CorpusSequences(ids, offsets, chunks, layout["bos"]), tokens)
            score_corpus(batches, scorer.by_file, values, device=scorer.device)
        for document, start, stop in zip(documents, offsets[:-1], offsets[1:], strict=True):
            lists = [values[self.kind][start:stop].tolist() for values in scores]
            kinds = ids[start:stop].tolist()
            document.metadata |= {"document_id": document.id, "scores": lists, "token_ids": kinds}
            self.stat_update("tokens", value=int(stop - start))
