"""Token scores by other methods, to measure ours against: word and classifier filters, tuned models, other kinds of
influence.

Every function gives float32 (N,), higher where the method would sooner leave a token out; only their order matters, and
that 0 and less means "keep". They are then averaged and pooled as the study's own scores are
(`ifguide.study.stages.scoring.treat`), and `ifguide.study.stages.select` takes the best, as many as the default
selection has hits.
"""

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ifguide.config.names import BASE
from ifguide.data.by_document import token_parts
from ifguide.data.corpus import TokenizedCorpus
from ifguide.data.readers import Row, read_rows, take_field
from ifguide.data.words import WRITTEN_WORD
from ifguide.errors import InputError
from ifguide.evaluation import Report
from ifguide.evaluation.toxicity import ToxicityScorer
from ifguide.runtime.progress import Progress, report_part
from ifguide.storage import artifacts, memory_maps
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages import checkpoints as study_models
from ifguide.study.stages.attributions import Scorer
from ifguide.study.stages.evaluating import load_study_scorer
from ifguide.study.stages.scoring import open_scoring, score_in_shards, score_kinds

_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*")
_MARKS = dict.fromkeys(("true", "1", "1.0"), 1.0) | dict.fromkeys(("false", "0", "0.0", "", "none"), 0.0)
"""What `selected` may be, in any format."""


def score_baseline(study: Study, unit: Unit, progress: Progress) -> list[np.ndarray]:
    """Scores float32 (N,) of one of `ifguide.study.variants.BASELINES`, before any treatment; one array a checkpoint
    where the method has several. An InputError: the classifier cannot be read; a ConfigError: several processes run."""
    by_classifier = {
        "words": score_words,
        "classifier-tokens": score_by_leaving_words_out,
        "classifier-documents": score_documents,
    }
    if unit.name not in by_classifier:
        study_models.require_one_process(f"the baseline `{unit.name}`")
        if unit.name == "loss-difference":
            return [score_by_tuned_models(study, unit, progress)]
        return score_by_influence(study, unit, progress)
    scorer = load_study_scorer(study, study.config.baselines.scorer)
    return [by_classifier[unit.name](study.corpus(), scorer, report_part(progress, "documents"))]


def score_words(corpus: TokenizedCorpus, scorer: ToxicityScorer, report: Report) -> np.ndarray:
    """The classifier's score, less one half, of the word a token belongs to, judged by itself: a word list with an
    order."""
    rated: dict[str, float] = {}
    scores = np.zeros(corpus.n_tokens, dtype=np.float32)
    for document, text in _texts(corpus, report):
        words = list(WRITTEN_WORD.finditer(text))
        new = sorted({word.group().lower() for word in words} - rated.keys())
        rated |= dict(zip(new, scorer.score(new).tolist(), strict=True)) if new else {}
        ranges = [(word.start(), word.end(), rated[word.group().lower()] - 0.5) for word in words]
        _give_to_tokens(corpus, document, ranges, scores)
    return scores


def score_by_leaving_words_out(corpus: TokenizedCorpus, scorer: ToxicityScorer, report: Report) -> np.ndarray:
    """How much less toxic the classifier finds a sentence without the word a token belongs to."""
    scores = np.zeros(corpus.n_tokens, dtype=np.float32)
    for document, text in _texts(corpus, report):
        places: list[tuple[int, int, int, int]] = []
        texts: list[str] = []
        for sentence in _SENTENCE.finditer(text):
            first, whole = sentence.start(), len(texts)
            texts.append(sentence.group())
            for word in WRITTEN_WORD.finditer(sentence.group()):
                places.append((first + word.start(), first + word.end(), whole, len(texts)))
                texts.append(sentence.group()[: word.start()] + sentence.group()[word.end() :])
        values = scorer.score(texts).tolist() if texts else []
        ranges = [(start, end, values[whole] - values[without]) for start, end, whole, without in places]
        _give_to_tokens(corpus, document, ranges, scores)
    return scores


def score_documents(corpus: TokenizedCorpus, scorer: ToxicityScorer, report: Report) -> np.ndarray:
    """The classifier's score of the document, at each of its tokens."""
    values = np.empty(corpus.n_documents)
    for first in range(0, corpus.n_documents, 1000):
        part = range(first, min(first + 1000, corpus.n_documents))
        values[part.start : part.stop] = scorer.score([corpus.document(document).text for document in part])
        report(part.stop, corpus.n_documents)
    return np.repeat(values, np.diff(corpus.offsets)).astype(np.float32)


def _texts(corpus: TokenizedCorpus, report: Report) -> Iterator[tuple[int, str]]:
    """Each document's number and text; a document is reported when the next one is asked for."""
    for document in range(corpus.n_documents):
        yield document, corpus.document(document).text
        report(document + 1, corpus.n_documents)


def _give_to_tokens(corpus: TokenizedCorpus, document: int, ranges: list, scores: np.ndarray) -> None:
    """Give every token of a document the highest value of the character ranges (start, end, value) that it overlaps."""
    first, stop = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
    starts, ends = np.asarray(corpus.char_start[first:stop]), np.asarray(corpus.char_end[first:stop])
    for start, end, value in ranges:
        # tokens are in the order of the text, so those that overlap are neighbours
        low, high = np.searchsorted(ends, start, side="right"), np.searchsorted(starts, end, side="left")
        part = scores[first + low : first + high]
        np.copyto(part, value, where=(part == 0) | (part < value))


def read_scores(corpus: TokenizedCorpus, path: str, *, marked: bool = False) -> tuple[np.ndarray, dict[str, int]]:
    """One score a token from a file, float32 (C, N), C the checkpoints that it has scores of, mostly 1; 0 where it has
    none. And how many `rows` were read, of how many `documents`, and how many `tokens` have another score than 0.

    Args:
        path: `.npy` with a number a token, (N,), in the corpus's order; or rows with the columns of `ifguide export`:
            `document_id`, `score`, and `position` (the token's, from 0 in its document) or `char_start` and `char_end`
            (every token that they touch gets the highest score given for it); or `document_id` and `scores`, a list
            with a number for each of the document's tokens, or one such list a checkpoint.
        marked: the rows mark tokens instead: 1 for each, but for those that are not `selected`.

    Raises:
        InputError: it does not fit the corpus, or a score is not a finite number.
    """
    if path.endswith(".npy"):
        scores, count, named = _read_array(corpus, path, marked), corpus.n_tokens, set(range(corpus.n_documents))
    else:
        scores, count, named = _no_scores(corpus, 1), 0, set()
        columns = ["document_id", "position", "char_start", "char_end", "score", "scores", "selected"]
        numbers = {name: number for number, name in enumerate(corpus.ids())}
        for count, row in enumerate(read_rows(path, columns=columns), start=1):
            name = str(take_field(row, "document_id"))
            # an exported CSV has a ' before what a spreadsheet takes for a formula
            if (document := numbers.get(name, numbers.get(name.removeprefix("'")))) is None:
                raise InputError(f"{row.where}: the corpus has no document {name!r}; use the ids of `ifguide export`")
            named.add(document)
            here = slice(int(corpus.offsets[document]), int(corpus.offsets[document + 1]))
            if row.values.get("scores") is not None:
                values = _read_lists(row, here.stop - here.start)
                if count == 1:
                    scores = _no_scores(corpus, len(values))
                if len(values) != len(scores):
                    raise InputError(f"{row.where}: expected {len(scores)} lists as before, got {len(values)}")
                scores[:, here] = values
                continue
            keys = ["position"] if "position" in row.values else ["char_start", "char_end"]
            try:
                mark = row.values.get("selected", True)
                value = _MARKS[str(mark).lower()] if marked else float(take_field(row, "score") or 0)
                place = [_read_whole(take_field(row, key)) for key in keys]
            except (TypeError, ValueError, KeyError):
                raise InputError(f"{row.where}: expected numbers, got {row.values}; correct the row") from None
            if len(place) == 2:
                length = len(corpus.document(document).text)
                if not 0 <= place[0] < place[1] <= length:
                    expected = f"characters from 0 to {length}, the end after the start"
                    raise InputError(f"{row.where}: expected {expected}, got {place[0]} to {place[1]}")
                _give_to_tokens(corpus, document, [(*place, value)], scores[0])
            elif 0 <= place[0] < here.stop - here.start:
                scores[0, here.start + place[0]] = value
            else:
                last = here.stop - here.start - 1
                raise InputError(f"{row.where}: expected a position from 0 to {last}, got {place[0]}")
    parts = [scores[:, part] for part in token_parts(corpus.n_tokens)]
    if n_bad := sum(int((~np.isfinite(part)).sum()) for part in parts):
        raise InputError(f"{path}: {n_bad:,} scores are not finite; leave them out")
    n_tokens = sum(int(part.any(axis=0).sum()) for part in parts)
    return scores, {"rows": count, "documents": len(named), "tokens": n_tokens}


def _read_array(corpus: TokenizedCorpus, path: str, marked: bool) -> np.ndarray:
    """Scores float32 (1, N) from a `.npy` file."""
    array = artifacts.load_array(Path(path))
    if array.shape != (corpus.n_tokens,) or array.dtype.kind not in "biuf":
        got = f"the shape {array.shape} of {array.dtype}"
        raise InputError(f"{path}: expected {corpus.n_tokens:,} numbers, one a token, got {got}")
    if marked and any(((array[part] != 0) & (array[part] != 1)).any() for part in token_parts(corpus.n_tokens)):
        raise InputError(f"{path}: expected true and false, or 1 and 0, in a mask; give scores with --scores")
    return np.asarray(array, dtype=np.float32)[None]


def _read_whole(value) -> int:
    number = float(value)
    if isinstance(value, bool) or not number.is_integer():
        raise ValueError("not a whole number")
    return int(number)


def _no_scores(corpus: TokenizedCorpus, n_checkpoints: int) -> np.ndarray:
    """Zeros float32 (C, N), on disk where they are large."""
    shape = n_checkpoints, corpus.n_tokens
    return memory_maps.zeros(n_checkpoints * corpus.n_tokens, np.float32, corpus.folder.parent).reshape(shape)


def _read_lists(row: Row, n_tokens: int) -> np.ndarray:
    """A row's `scores`, float32 (C, n_tokens)."""
    try:
        values = np.atleast_2d(np.asarray(row.values["scores"], dtype=np.float32))
    except (TypeError, ValueError):
        raise InputError(f"{row.where}: expected lists of numbers of one length in scores; correct the row") from None
    if values.ndim != 2 or values.shape[1] != n_tokens:
        raise InputError(
            f"{row.where}: expected {n_tokens} scores, one for each token of the document, got {values.shape[-1]};"
            " score the same texts with the study's tokenizer"
        )
    return values


def score_by_influence(study: Study, unit: Unit, progress: Progress) -> list[np.ndarray]:
    """Influence of another kind: `standard` (toxic queries alone) at each checkpoint, or at the finished model alone
    (`last-position`, `last-own-loss`)."""
    differential = unit.name != "standard"
    kind = "position" if unit.name == "last-position" else "own_loss"

    def directions(checkpoint: str) -> list[study_models.Direction]:
        model, modules, device = study_models.load_checkpoint(study, checkpoint)
        if checkpoint == BASE:  # fitted for this baseline alone
            path = open_scoring(study, unit) / "factors.safetensors"
            study_models.fit_checkpoint(study, path, model, modules, device)
            factors = study_models.StoredFactors(path, str(device)) or None
        else:
            factors = study_models.read_factors(study, checkpoint, str(device))
        return [study_models.compute_direction(study, model, modules, factors, differential=differential)]

    folder, names = open_scoring(study, unit) / "scored", [BASE] if differential else study.checkpoint_names()
    score_kinds(study, unit, folder, progress, [kind], checkpoints=names, directions=directions)
    return [artifacts.load_array(folder / name / f"{kind}.npy") for name in names]


def score_by_tuned_models(study: Study, unit: Unit, progress: Progress) -> np.ndarray:
    """Cross-entropy under the base model tuned on the safe queries minus that under the one tuned on the toxic queries,
    in nats."""
    import torch

    from ifguide.influence.losses import SplitModel
    from ifguide.training.train import train_model

    settings, work = study.config.baselines, open_scoring(study, unit)
    rate = settings.learning_rate or study.config.training.learning_rate / 10
    training = dataclasses.replace(
        study.config.training, epochs=settings.epochs, learning_rate=rate, packing=False, adapter="", save_steps=0
    )

    def tuned_losses(kind: str, part: int) -> np.ndarray:
        model, _, device = study_models.load_checkpoint(study, BASE)
        rows = [
            {"input_ids": np.asarray(ids), "labels": np.where(mask, ids, -100)}
            for ids, mask in study_models.encoded_queries(study, kind)
        ]
        with tempfile.TemporaryDirectory(prefix="ifguide-tuned-") as folder:
            train_model(model, None, rows, training, None, Path(folder))
        split = SplitModel(model.requires_grad_(False))
        scorer = Scorer(files=("loss",), score=lambda batch: [split(batch)], device=device)
        scored, report = work / "scored" / kind, report_part(progress, part=part, parts=2)
        with torch.no_grad():
            score_in_shards(study, work / kind, scorer, report).assemble(scored)
        return artifacts.load_array(scored / "loss.npy")

    return tuned_losses("safe", 0) - tuned_losses("toxic", 1)
