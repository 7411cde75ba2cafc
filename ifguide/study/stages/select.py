"""Selections of a study: Algorithm 1 or a control, from the study's own scores; saved, corrected by verdicts, renamed
and deleted."""

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.attributions import attributions
from ifguide.config.names import DEFAULT, check_name
from ifguide.config.schema import SelectionConfig
from ifguide.data.by_document import sum_by_document, token_parts
from ifguide.data.corpus import TokenizedCorpus
from ifguide.errors import ConfigError, InputError, StaleError, StudyNotFound
from ifguide.selection import algorithm
from ifguide.selection.algorithm import Ranking
from ifguide.selection.choice import FALLBACK_SHARE, Choice, read_choice
from ifguide.selection.saved import Selection, write_selection
from ifguide.selection.transfer import transfer_mask
from ifguide.selection.verdicts import Target, apply_verdicts
from ifguide.storage import artifacts, memory_maps
from ifguide.storage.lock import study_lock
from ifguide.study.freshness import inputs_of, settings_of, unit_state
from ifguide.study.lineage import BUILT_IN_SELECTIONS, Unit, scores_unit
from ifguide.study.reading import Study
from ifguide.study.variants import BASELINES, RESERVED

if TYPE_CHECKING:
    from ifguide.selection.index import ScoreIndex
    from ifguide.selection.index.chunks import Chunks

NAMED_STAGES = ("selection", "suppress", "evaluate")
"""Stages with an artefact of a selection's name, in the order they are made."""


def preview_selection(study: Study, settings: Mapping) -> Selection:
    """Compute a selection without saving it; `settings` as for `save_selection`."""
    return _by_scores(study, _choice(study, settings), "preview")


def save_selection(study: Study, name: str, settings: Mapping) -> Selection:
    """Compute a selection from the study's scores and save it. `settings` are any of attribution, tokens_above or
    quantile, window, max_tokens; the rest comes from study.toml. A ConfigError: a bad name or setting."""
    _check_new_name(name)
    for section in ("variants", "borrowed"):
        if name in getattr(study.config, section):
            raise ConfigError(f"study.toml has a [{section}.{name}]; choose another name for your selection")
    choice = _choice(study, settings)
    reads = [Unit("corpus"), scores_unit(study.config, choice.attribution)]
    inputs = inputs_of(study, Unit("selection", name), reads)  # scores rebuilt meanwhile make the selection stale
    made = _by_scores(study, choice, name)
    flat = {f"selection.{field.name}": made.settings[field.name] for field in dataclasses.fields(Choice)}
    return _save(study, made, inputs, flat)


def save_reviewed(study: Study, selection: str, name: str, verdicts: dict[Target, str]) -> Selection:
    """Save a selection corrected by verdicts (from `VerdictLog.current`) under another name: without the tokens that
    people called fine, with the spans they called toxic. It can be trained against like any other. A ConfigError: a bad
    name, or the verdicts change nothing."""
    check_name(name, "selection")
    if name in (*RESERVED, selection):
        raise ConfigError(f"the name {name!r} is taken; choose another for the corrected selection")
    corpus, chosen = study.corpus(), study.selection(selection)
    corrected = apply_verdicts(chosen.mask, corpus, verdicts, out=_new_mask(study))
    if not corrected.excluded and not corrected.forced:
        raise ConfigError(
            f"the {len(verdicts):,} verdicts change nothing in the selection {selection!r}: call some of its documents"
            " or spans fine, or spans outside it toxic"
        )
    selected = sum_by_document(corrected.mask, np.asarray(corpus.offsets))
    settings = chosen.settings | {
        "name": name,
        "n_selected": int(selected.sum()),
        "n_documents_hit": int(np.count_nonzero(selected)),
        "corrected": selection,
        "excluded": corrected.excluded,
        "forced": corrected.forced,
    }
    given = sorted([t.document, t.start, t.stop, verdict] for t, verdict in verdicts.items())
    base = artifacts.read_manifest(study.folder(Unit("selection", selection)))
    config = {**(base["config"] if base else {}), "corrected": selection, "verdicts": artifacts.hash_json(given)}
    made = dataclasses.replace(chosen, name=name, settings=settings, mask=corrected.mask)
    return _save(study, made, inputs_of(study, Unit("selection", name)), config)


def _check_new_name(name: str) -> None:
    check_name(name, "selection")
    if name in RESERVED:
        raise ConfigError(f"the name {name!r} is built in; choose another for your selection")


def _save(study: Study, made: Selection, inputs: dict, config: dict) -> Selection:
    place = study.folder(Unit("selection", made.name))
    with artifacts.building(place, stage="selection", inputs=inputs, config=config) as folder:
        write_selection(made, folder)
    return study.selection(made.name)


def select_default(study: Study) -> None:
    """Make the default selection as a run does, for a study that has scores and no selection."""
    unit = Unit("selection", DEFAULT)
    inputs, config = inputs_of(study, unit), settings_of(study, unit)
    made = compute_selection(study, study.config.selection, name=DEFAULT, kind="influence")
    _save(study, made, inputs, config)


def selection_warning(study: Study) -> str:
    """That the default selection is not what it usually is: nothing stood out, or it holds no token; else empty."""
    try:
        settings, remedy = study.selection().settings, "choose another on the Threshold page or with `ifguide select`"
    except StaleError:  # there is none, or it is of another corpus
        return ""
    if not settings["n_selected"]:
        return f"The default selection holds no token, so there is nothing to train without; {remedy}"
    if not (why := settings.get("no_tail", "")):
        return ""
    taken = f"The default selection is the {FALLBACK_SHARE:.1%} of tokens with the highest scores"
    return f"{why[0].upper()}{why[1:]}. {taken}; {remedy}"


def trained_parts(study: Study, name: str) -> list[Unit]:
    """What was made with a selection: its model and the measurements of it, as far as they are there."""
    units = [Unit(stage, name) for stage in NAMED_STAGES[1:]]
    return [unit for unit in units if (study.folder(unit) / artifacts.MANIFEST).is_file()]


def rename_selection(study: Study, name: str, new: str) -> None:
    """Give a saved selection another name; its tokens and settings stay as they are.

    Raises:
        ConfigError: a built-in name or one that is taken or no good as a name; or a model was trained with it, which
            carries the name too.
        StudyNotFound: there is no such selection.
        BusyError: a job works on the study.
    """
    _require_own(study, name)
    _check_new_name(new)
    if new in study.selection_names():
        raise ConfigError(f"there is a selection {new!r} already; choose another name, or delete that one first")
    with study_lock(study.root):
        if trained_parts(study, name):
            raise ConfigError(
                f"a model was trained with {name!r} and carries its name; save the choice again under the new name"
            )
        old, place = (study.folder(Unit("selection", each)) for each in (name, new))
        manifest = artifacts.read_json(old / artifacts.MANIFEST)
        inputs, config = manifest["inputs"], manifest["config"]
        with artifacts.building(place, stage="selection", inputs=inputs, config=config) as partial:
            shutil.copytree(old, partial, ignore=shutil.ignore_patterns(artifacts.MANIFEST), dirs_exist_ok=True)
            described = artifacts.read_json(partial / "selection.json")
            artifacts.write_json(partial / "selection.json", described | {"name": new})
        shutil.rmtree(old)
        shutil.rmtree(study.folder(Unit("documents", name)), ignore_errors=True)


def delete_selection(study: Study, name: str) -> None:
    """Delete a saved selection, its model and the measurements of it; errors as `rename_selection`."""
    _require_own(study, name)
    with study_lock(study.root):
        for stage in (*reversed(NAMED_STAGES), "documents"):
            folder = study.folder(Unit(stage, name))
            if folder.is_dir():
                shutil.rmtree(folder)


def _require_own(study: Study, name: str) -> None:
    if name in BUILT_IN_SELECTIONS:
        raise ConfigError(f"the selection {name!r} is built in; only your own can be renamed or deleted")
    if name not in study.selection_names():
        saved = ", ".join(study.selection_names()) or "none"
        raise StudyNotFound(f"study {study.name!r} has no selection {name!r}; it has {saved}")


def _choice(study: Study, settings: Mapping | SelectionConfig) -> Choice:
    corpus = study.corpus()
    offsets = np.asarray(corpus.offsets)

    def count_tail(kind: str) -> int:
        return algorithm.count_tail(study.scores(kind), offsets, corpus.trained)

    return read_choice(settings, study.config.selection, corpus.n_valid, count_tail)


def compute_selection(study: Study, settings: SelectionConfig, *, name: str, kind: str) -> Selection:
    """Compute a selection of study.toml in memory, from the study's corpus and, but for `oracle`, its scores.

    Args:
        settings: quantile, window, budget and attribution.
        kind: `influence` (Algorithm 1), `random` (as many tokens as Algorithm 1 selects), `oracle` (the known spans),
            a kind of score or one of `ifguide.study.variants.BASELINES` (the default selection by these scores), or
            `borrowed` (the mask of another study, carried over; `name` says which).

    Raises:
        ConfigError: `oracle` without known spans.
        StaleError: the study has no scores of that kind, or scores of another corpus.
        InputError: the mask is borrowed from a study of other texts.
    """
    if kind in ("influence", "random"):
        return _by_scores(study, _choice(study, settings), name, settings.seed if kind == "random" else None)
    if kind in attributions() or kind in study.config.imported or kind in BASELINES:
        return _as_the_default(study, name, kind)
    corpus = study.corpus()
    if kind == "borrowed":
        lent = study.config.borrowed[name]
        other = Study.open(lent.study, study.root.parent)
        mask = transfer_mask(other.corpus(), other.selection(lent.selection).mask, corpus, _new_mask(study))
    elif corpus.in_span is None:
        raise ConfigError("this corpus has no known spans; name their column with --spans-field")
    else:
        mask = _mark(study, corpus.in_span.__getitem__)
    return _from_mask(study, name, kind, mask)


def _as_the_default(study: Study, name: str, method: str) -> Selection:
    """What the default selection would be by other scores: as many hits, the best first, with its window and budget."""
    usual = study.selection(DEFAULT).settings
    choice = Choice(attribution=method, **{key: usual[key] for key in ("tokens_above", "window", "max_tokens")})
    if method in attributions():
        return _by_scores(study, choice, name)
    scores = np.asarray(study.scores(method))
    if method == "classifier-documents":
        least = study.config.baselines.document_min
        return _from_mask(study, name, method, _mark(study, lambda part: scores[part] >= least))
    return select_best(study, name, method, scores, choice)


def select_best(study: Study, name: str, method: str, scores: np.ndarray, choice: Choice) -> Selection:
    """A selection by scores float32 (N,) that the study has no index of: the choice's number of hits, the best first,
    with its window and budget."""
    corpus = study.corpus()
    kth, _ = _chunks(corpus, scores).threshold_above(max(0, choice.tokens_above - 1))
    best = memory_maps.zeros(len(scores), np.float32, study.root)  # of equal scores some may be hits and others not
    threshold = algorithm.keep_best(scores, corpus.valid_parts, kth, choice.tokens_above, best)
    ranking, mask = _take(study, best, threshold, choice)
    return _describe(study, name, method, ranking, mask, window=choice.window, max_tokens=choice.max_tokens)


def _from_mask(study: Study, name: str, kind: str, mask: np.ndarray) -> Selection:
    """A selection made in another way; documents are ranked by how much of it they have."""
    return _describe(study, name, kind, _rank(study.corpus(), mask, 0.5), mask)


def save_mask(study: Study, name: str, path: str) -> Selection:
    """Save the tokens that a file names (see `ifguide.study.stages.baselines.read_scores`) as a selection. A
    ConfigError: a bad name; an InputError: the file does not fit the corpus, or names no token."""
    from ifguide.study.stages.baselines import read_scores

    _check_new_name(name)
    marks, matched = read_scores(study.corpus(), path, marked=True)
    mask = _mark(study, lambda part: marks[0, part] > 0)
    if not mask.any():
        raise InputError(f"{path} marks no selectable token; first tokens, and those not trained on, have no score")
    return _save_marked(study, name, mask, matched=matched)


def save_documents(study: Study, name: str, documents: Iterable[int], answer: str = "") -> Selection:
    """Save all tokens of some documents, by their numbers, as a selection; `answer` is from `name_answer` if they were
    traced. A ConfigError: a bad name."""
    _check_new_name(name)
    corpus, mask = study.corpus(), _new_mask(study)
    for document in documents:
        part = slice(int(corpus.offsets[document]), int(corpus.offsets[document + 1]))
        mask[part] = corpus.valid_parts[part]
    return _save_marked(study, name, mask, answer=answer)


def _save_marked(study: Study, name: str, mask: np.ndarray, **notes) -> Selection:
    inputs = inputs_of(study, Unit("selection", name), [Unit("corpus")])
    made = _from_mask(study, name, "mask", mask)
    made.settings.update(notes)
    return _save(study, made, inputs, {"kind": "mask"})


def _by_scores(study: Study, choice: Choice, name: str, seed: int | None = None) -> Selection:
    """Algorithm 1, through the index where it is fresh; with a seed, as many tokens drawn at random."""
    if study.config.selection.whole_windows and choice.max_tokens:
        choice = _without_cut_windows(study, choice)
    if choice.attribution in study.kinds() and unit_state(study, Unit("index")).state == "fresh":
        index = open_index(study, choice.attribution)
        resolved = index.resolve(choice)
        ranking, mask = resolved.ranking, index.mask(resolved, _new_mask(study))
    else:
        ranking, mask = select_by_scan(study, choice)
    corpus, kind = study.corpus(), "influence"
    if seed is not None:
        n_tokens = int(sum_by_document(mask, np.asarray(corpus.offsets)).sum())
        kind, mask = "random", algorithm.select_random(corpus.valid_parts, n_tokens, seed, _new_mask(study))
    above = int(ranking.count_above.sum())
    made = {"tokens_above": above, "quantile": (corpus.n_valid - above) / corpus.n_valid}
    return _describe(study, name, kind, ranking, mask, **dataclasses.asdict(choice) | made)


def _without_cut_windows(study: Study, choice: Choice) -> Choice:
    """The choice with the largest smaller budget that cuts no window."""
    corpus, (window, budget) = study.corpus(), (choice.window, choice.max_tokens)
    scored = np.asarray(study.scores(choice.attribution)), np.asarray(corpus.offsets), corpus.valid_parts
    ranking, _ = select_by_scan(study, choice)
    whole = algorithm.whole_window_budget(*scored, ranking, window=window, max_tokens=budget)
    if not whole:
        raise ConfigError(f"selection.max_tokens: {budget} tokens hold not one whole window; raise it")
    return dataclasses.replace(choice, max_tokens=whole)


def _describe(study: Study, name: str, kind: str, ranking: Ranking, mask: np.ndarray, **made) -> Selection:
    """A selection with its settings: what made it, as far as `made` says, and what follows from it."""
    corpus = study.corpus()
    selected = sum_by_document(mask, np.asarray(corpus.offsets))
    settings = {
        "name": name,
        "kind": kind,
        "attribution": None,
        "tokens_above": None,
        "quantile": None,
        "window": 0,
        "max_tokens": 0,
        **made,
        "threshold": ranking.threshold,
        "n_selected": int(selected.sum()),
        "n_valid": corpus.n_valid,
        "n_documents_hit": int(np.count_nonzero(selected)),
    }
    return Selection(name, settings, mask, ranking.order, ranking.count_above, ranking.sum_above, ranking.rank_score)


def open_index(study: Study, kind: str = "") -> "ScoreIndex":
    """The index of a study's scores of one kind. A StaleError: it is missing, damaged or of other scores."""
    from ifguide.selection.index import ScoreIndex

    kind = kind or study.config.selection.attribution
    study.manifest(Unit("index"))  # names the command that builds it when it is not there
    return ScoreIndex(
        study.folder(Unit("index")),
        kind,
        corpus=study.corpus(),
        scores=study.scores(kind),
        defaults=study.config.selection,
        remedy=f"build it again with `ifguide run {study.name} --force index`",
    )


def select_by_scan(study: Study, choice: Choice) -> tuple[Ranking, np.ndarray]:
    """Algorithm 1 by reading all scores: the documents' ranking, and the mask bool (N,). A StaleError: the study has no
    scores of that kind, or scores of another corpus."""
    corpus, scores = study.corpus(), np.asarray(study.scores(choice.attribution))
    if len(scores) != corpus.n_tokens:
        raise StaleError(
            f"the scores are of another corpus ({len(scores):,} tokens, now {corpus.n_tokens:,}); "
            f"compute them again with `ifguide run {study.name} --until scores`"
        )
    threshold, _ = _chunks(corpus, scores).threshold_above(choice.tokens_above)
    return _take(study, scores, threshold, choice)


def _chunks(corpus: TokenizedCorpus, scores: np.ndarray) -> "Chunks":
    from ifguide.selection.index.chunks import Chunks

    return Chunks(scores, corpus.offsets, corpus.trained)


def _take(study: Study, scores: np.ndarray, threshold: float, choice: Choice) -> tuple[Ranking, np.ndarray]:
    """The documents ranked by their scores above a threshold, and the mask with the choice's window and budget."""
    corpus = study.corpus()
    ranking, offsets = _rank(corpus, scores, threshold), np.asarray(corpus.offsets)
    mask = algorithm.select_tokens(
        scores,
        offsets,
        corpus.valid_parts,
        ranking,
        window=choice.window,
        max_tokens=choice.max_tokens,
        mask=_new_mask(study),
    )
    return ranking, mask


def _rank(corpus: TokenizedCorpus, scores: np.ndarray, threshold: float) -> Ranking:
    return algorithm.rank_documents(scores, np.asarray(corpus.offsets), corpus.valid_parts, threshold, corpus.id_rank)


def _new_mask(study: Study) -> np.ndarray:
    """A mask bool (N,), all False, on disk where it is large."""
    return memory_maps.zeros(study.corpus().n_tokens, bool, study.root)


def _mark(study: Study, chosen: Callable[[slice], np.ndarray]) -> np.ndarray:
    """A mask bool (N,) of the valid tokens among the chosen ones, part by part."""
    mask, valid = _new_mask(study), study.corpus().valid_parts
    for part in token_parts(len(mask), mask):
        mask[part] = chosen(part) & valid[part]
    return mask
