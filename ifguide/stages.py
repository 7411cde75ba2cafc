"""What each stage does: reads the artefacts before it, computes, writes its own into the folder it is given.

Every function has the same form, `build_<stage>(study, unit, folder, progress)`, and the pipeline calls it by name. Those of the
stages in `SHARED` are called in every process of a run (see `ifguide.distributed`): all compute, the main one writes.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ifguide import artifacts
from ifguide.corpus import build_corpus as tokenise_corpus
from ifguide.distributed import current
from ifguide.errors import ConfigError, InputError, NumericalError
from ifguide.progress import Progress
from ifguide.scoring import (
    SCORES,
    average_over_checkpoints,
    corpus_sequences,
    direction_file,
    open_scoring,
    read_layout,
    score_file,
    score_in_shards,
)
from ifguide.selections import compute_selection, write_selection
from ifguide.shards import offload_folder
from ifguide.study import DEFAULT, Study, Unit

SHARED = ("model", "factors", "direction", "scores", "suppress")
"""Stages whose work several processes divide; the others are the main process's alone."""
SAMPLE_TOKENS = 2_000
"""Corpus tokens on which central differences are compared with the exact derivative."""


def build_corpus(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Text -> tokens that know their document and their characters."""
    from ifguide.models import bos_context, load_config, load_tokenizer

    source, revision = study.resolve(study.config.model.source), study.config.model.revision
    tokenizer = load_tokenizer(source, revision)
    config = study.resolved("corpus")
    corpus = tokenise_corpus(config, tokenizer, folder, report=_reporter(progress, "documents"))
    if skipped := corpus.summary.skipped:
        progress.message(f"{skipped:,} rows without text were left out")
    vocab_size = load_config(source, revision).get_text_config().vocab_size
    largest = max(int(corpus.token_ids.max()), tokenizer.eos_token_id or 0)
    if largest >= vocab_size:
        raise InputError(
            f"the tokenizer in {source!r} gives the token {largest:,}, but the model beside it knows only 0 to {vocab_size - 1:,}; "
            "use the model's own tokenizer"
        )
    layout = {"max_length": study.max_length(), "bos": bos_context(tokenizer)}
    (folder / "layout.json").write_text(json.dumps(layout), encoding="utf-8")


def build_queries(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """The query files -> prompt and completion tables, toxic and safe."""
    from ifguide.queries import read_queries

    sets = study.query_sets()
    for number, queries in enumerate(sets):
        config = study.resolved_queries(queries)
        (folder / score_file("", queries)).mkdir(parents=True, exist_ok=True)
        for turn, kind in enumerate(("toxic", "safe")):
            pairs = read_queries(getattr(config, kind), kind=kind, config=config, max_queries=config.max_queries)
            progress.message(pairs.attrs["summary"])
            pairs.attrs.clear()
            pairs.to_parquet(folder / f"{score_file(kind, queries)}.parquet", index=False)
            progress.report(2 * number + turn + 1, 2 * len(sets), "sets")


def build_model(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Train the base model and keep early checkpoints, or take the given one as it is."""
    from ifguide.training import choose_checkpoint_steps, train_model

    config = study.config
    if config.model.mode == "asis":
        if current().is_main:
            _take_as_it_is(study, folder)
        return
    model, tokenizer = _start_model(study)
    rows = _training_rows(study, tokenizer, None)
    steps = choose_checkpoint_steps(len(rows), config.training)
    result = train_model(model, tokenizer, rows, config.training, None, folder, _reporter(progress), steps)
    kept = [{"name": path.name, "source": f"checkpoints/{path.name}"} for path in result.checkpoints]
    if config.training.include_last_checkpoint or not kept:
        kept.append({"name": "last", "source": "final"})
    if current().is_main:
        _write_models(folder, {"base": {"source": "final"}, "checkpoints": kept})


def _take_as_it_is(study: Study, folder: Path) -> None:
    config = study.config.model
    base = {"source": study.resolve(config.source), "revision": config.revision}
    given = [
        {"name": f"checkpoint-{i + 1}", "source": study.resolve(c), "revision": ""}
        for i, c in enumerate(config.checkpoints)
    ]
    # the weights stay where they are; with their hashes in it, this file changes when they do, and so does all that reads them
    files = {key: digest for key, digest in study.inputs(Unit("model")).items() if key.startswith("file ")}
    _write_models(folder, {"base": base, "checkpoints": given or [{"name": "given", **base}], "files": files})


def _write_models(folder: Path, models: dict) -> None:
    (folder / "models.json").write_text(json.dumps(models, indent=1), encoding="utf-8")


def build_factors(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """EK-FAC factors of each checkpoint, fitted on the corpus."""
    import torch

    from ifguide.influence.batches import make_batches
    from ifguide.influence.ekfac import fit_factors

    config, processes = study.config.factors, current()
    names, found = study.checkpoint_names(), {}
    for number, name in enumerate(names):
        if config.strategy == "identity":
            _save_tensors({}, folder / name / "factors.safetensors")
            continue
        model, modules, device = _load_checkpoint(study, name)
        products = _products(config.products, device) if study.config.model.dtype != "float64" else ""
        found[name] = {"products": products or "float32"}
        sequences = corpus_sequences(study, max_tokens=config.max_tokens, seed=config.seed)
        batches = functools.partial(
            make_batches,
            sequences,
            study.config.compute.tokens_per_batch,
            share=(processes.rank, processes.world_size),
        )
        factors = fit_factors(
            model,
            modules,
            batches,
            labels=config.labels,
            seed=config.seed,
            products=getattr(torch, products) if products else None,
            report=_reporter(progress, part=number, parts=len(names)),
            report_eigenbases=_reporter(progress, "eigenbases"),
            processes=processes,
        )
        tensors = {
            f"{layer}|{part}": getattr(
                f, part
            ).clone()  # layers share inputs, but a file of theirs may not share memory
            for layer, f in factors.items()
            for part in ("input_vectors", "output_vectors", "eigenvalues")
        }
        _save_tensors(tensors, folder / name / "factors.safetensors")
    _write_notes({"factors": found}, folder)


def _products(setting: str, device) -> str:
    """The dtype that `factors.products` means on a device; empty: that of the sums."""
    from ifguide.models import has_fast_bfloat16

    if setting == "auto":
        return "bfloat16" if has_fast_bfloat16(device) else ""
    return "" if setting == "float32" else setting


def _write_notes(notes: dict, folder: Path) -> None:
    """What the stage found out while it ran, for the manifest."""
    if current().is_main:
        (folder / artifacts.NOTES).write_text(json.dumps(notes, indent=1), encoding="utf-8")


def _read_factors(study: Study, checkpoint: str, device: str):
    from ifguide.influence.ekfac import LayerFactors

    tensors = artifacts.load_tensors(study.folder(Unit("factors")) / checkpoint / "factors.safetensors", device=device)
    layers: dict[str, dict] = {}
    for key, tensor in tensors.items():
        layer, part = key.rsplit("|", 1)
        layers.setdefault(layer, {})[part] = tensor
    return {layer: LayerFactors(**parts) for layer, parts in layers.items()} or None


def build_direction(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Queries and factors of each checkpoint -> the direction v."""
    from ifguide.influence.direction import differential_direction, query_gradient
    from ifguide.queries import encode_queries

    config, layout = study.config.direction, read_layout(study)
    tokenizer = _tokenizer(study)
    kinds = ("toxic", "safe") if config.differential else ("toxic",)
    turns = [(name, queries) for name in study.checkpoint_names() for queries in study.query_sets()]
    loaded = None
    for number, (name, queries) in enumerate(turns):
        if loaded != name:
            loaded = name
            model, modules, device = _load_checkpoint(study, name)
            factors = _read_factors(study, name, str(device))
        gradients = {}
        for turn, kind in enumerate(kinds):
            gradients[kind] = query_gradient(
                model, modules,
                encode_queries(study.queries(kind, queries), tokenizer, layout["max_length"], bos_id=layout["bos"]),
                weighting=config.weighting, objective=config.objective,
                tokens_per_batch=study.config.compute.tokens_per_batch,
                report=_reporter(progress, "queries", part=number * len(kinds) + turn, parts=len(turns) * len(kinds)),
                processes=current(),
            )  # fmt: skip
        direction = differential_direction(gradients["toxic"], gradients.get("safe"), factors, config.damping)
        _save_tensors(direction, folder / name / direction_file(queries))


def build_scores(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """One own-loss and one position score a token, checkpoint and pair of query sets, and their means over checkpoints."""
    from ifguide.influence.attribution import position_scores_several
    from ifguide.influence.derivative import score_along
    from ifguide.influence.losses import SplitModel

    names, sets, processes = study.checkpoint_names(), study.query_sets(), current()
    work = Path(processes.decide(lambda: str(open_scoring(study, unit))))
    turns = [
        (name, kind)
        for name in names
        for kind in ("own_loss", "position")
        if kind == "own_loss" or study.config.scores.position
    ]
    found: dict[str, dict] = {}
    for number, (name, kind) in enumerate(turns):
        if processes.is_main:
            (folder / name).mkdir(exist_ok=True)
        model, modules, device = _load_checkpoint(study, name, attention="eager" if kind == "own_loss" else "sdpa")
        directions = [_read_direction(study, name, queries, modules) for queries in sets]
        files = tuple(score_file(kind, queries) for queries in sets)
        report = _reporter(progress, part=number, parts=len(turns))
        if kind == "own_loss":
            split = SplitModel(model)
            ways = [_choose_derivative(study, split, modules, direction, device) for direction in directions]
            found[name] = {queries or "study": asdict(way) for queries, way in zip(sets, ways, strict=True)}
            if all(way.method != "jvp" for way in ways):
                model.set_attn_implementation("sdpa")  # only the exact derivative needs the slow one
                split = SplitModel(model)
            score = score_along(split, modules, directions, ways)
            score_in_shards(study, work, folder / name, (*files, "token_loss"), score, device, report)
        else:
            score = functools.partial(position_scores_several, SplitModel(model), modules, directions)
            score_in_shards(
                study, work, folder / name, files, lambda batch, score=score: score(batch)[0], device, report
            )
    if processes.is_main:
        files = [*SCORES, *(score_file(kind, queries) for queries in sets if queries for kind in SCORES[:2])]
        average_over_checkpoints(study.corpus(), [folder / name for name in names], files, folder)
    _write_notes({"derivatives": found}, folder)


def _read_direction(study: Study, checkpoint: str, queries: str, modules: dict) -> dict:
    """v of a pair of query sets, each layer's part where the layer computes."""
    from ifguide.influence.layers import device_of

    tensors = artifacts.load_tensors(study.folder(Unit("direction")) / checkpoint / direction_file(queries))
    return {name: tensor.to(device_of(modules[name])) for name, tensor in tensors.items()}


def _choose_derivative(study: Study, split, modules, direction, device):
    """The way to take the derivative that the settings, and a sample of the corpus, ask for; the same in every process."""
    from ifguide.influence.batches import make_batches
    from ifguide.influence.derivative import Derivative, choose_derivative
    from ifguide.models import has_fast_bfloat16

    def choose() -> dict:
        sequences = corpus_sequences(study, max_tokens=SAMPLE_TOKENS, seed=study.config.factors.seed)
        sample = [batch.to(device) for batch in make_batches(sequences, study.config.compute.tokens_per_batch)]
        way = choose_derivative(
            split, modules, direction, sample, setting=study.config.scores.derivative, narrow=has_fast_bfloat16(device)
        )
        return asdict(way)

    return Derivative(**current().decide(choose))


def build_index(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """The index of each kind of scores, so that what any threshold selects comes without a scan."""
    from ifguide.index.build import build_index as index_scores
    from ifguide.index.counts import Sources, Tokens
    from ifguide.models import load_tokenizer

    corpus = study.corpus()
    tokenizer = load_tokenizer(str(corpus.folder / "tokenizer"), "")
    pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    sources = Sources.of(corpus.column("source"), np.asarray(corpus.offsets))
    kinds = [kind for kind in ("own_loss", "position") if study.has_scores(kind)]
    for number, kind in enumerate(kinds):
        (folder / kind).mkdir()
        try:
            index_scores(
                folder / kind, study.scores(kind), corpus.offsets, sources, in_span=corpus.in_span,
                tokens=Tokens(corpus.token_ids, pieces), report=_reporter(progress, part=number, parts=len(kinds)),
            )  # fmt: skip
        except NumericalError as error:
            raise NumericalError(
                f"{kind}: {error}; compute them again with `ifguide run {study.name} --force scores`"
            ) from error


def build_selection(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """The default selection, or one of its controls."""
    kind = "influence" if unit.name == DEFAULT else unit.name
    selection = compute_selection(study, study.config.selection, name=unit.name, kind=kind)
    if not selection.settings["n_selected"]:
        raise ConfigError(
            f"selection {unit.name!r} holds no token; lower selection.quantile (now {study.config.selection.quantile})"
        )
    write_selection(selection, folder)


def build_suppress(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Train again from the same start with the selected tokens penalised."""
    from ifguide.training import train_model

    model, tokenizer = _start_model(study)
    mask = np.asarray(study.selection(unit.name).mask)
    rows = _training_rows(study, tokenizer, mask)
    train_model(model, tokenizer, rows, study.config.training, study.config.suppress, folder, _reporter(progress))


def build_evaluate(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Complete the prompts, judge the completions, measure what else the model can do."""
    from ifguide.evaluating import evaluate_unit

    metrics, samples = evaluate_unit(study, unit, progress)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    samples.to_parquet(folder / "samples.parquet", index=False)


# ---- what several stages need ----


def _reporter(progress: Progress, unit: str = "tokens", *, part: int = 0, parts: int = 1) -> Callable[[int, int], None]:
    """A callback (done, total) that reports part `part` of `parts` equal parts of a stage."""
    return lambda done, total: progress.report(part * total + done, parts * total, unit)


def _save_tensors(tensors: dict, path: Path) -> None:
    """What every process has, written once."""
    if current().is_main:
        path.parent.mkdir(exist_ok=True)
        artifacts.save_tensors(tensors, path)


def _tokenizer(study: Study):
    from ifguide.models import load_tokenizer

    return load_tokenizer(study.resolve(study.config.model.source), study.config.model.revision)


def _start_model(study: Study):
    """The model every training starts from, and its tokenizer."""
    from ifguide.models import load_config, load_model, pick_device
    from ifguide.training import initialise_model

    config, tokenizer = study.config, _tokenizer(study)
    source = study.resolve(config.model.source)
    device = pick_device(config.compute.device)
    if config.model.mode == "scratch":
        description = load_config(source, config.model.revision).to_dict()
        return initialise_model(description, description["vocab_size"], config.training.seed).to(device), tokenizer
    model = load_model(source, revision=config.model.revision, device=device)
    return model.requires_grad_(True), tokenizer


def _training_rows(study: Study, tokenizer, mask):
    """The corpus as training rows. A tokenizer's own beginning-of-text token goes before each document, but not in packed rows."""
    from ifguide.packing import BosRows, pack_rows

    corpus, layout, packing = study.corpus(), read_layout(study), study.config.training.packing
    bos = None if packing else layout["bos"]
    length = layout["max_length"] - (bos is not None)
    rows = pack_rows(corpus.token_ids, np.asarray(corpus.offsets), length, tokenizer.eos_token_id, mask, pack=packing)
    return rows if bos is None else BosRows(rows, bos)


def _load_checkpoint(study: Study, name: str, attention: str = "sdpa"):
    """One scoring checkpoint on its device, with its tracked layers; with `compute.device_map`, the device its inputs go to."""
    from ifguide.influence.layers import device_of
    from ifguide.models import Placement, load_model, pick_device, tracked_modules

    entry = next(c for c in study.models()["checkpoints"] if c["name"] == name)
    compute, placement = study.config.compute, None
    if compute.device_map:
        if not current().alone:
            raise ConfigError(
                "compute.device_map spreads one model over all devices; start one process, or leave it empty"
            )
        placement = Placement(
            strategy=compute.device_map, max_memory=compute.max_memory, offload_folder=offload_folder(study.root)
        )
    device = pick_device(compute.device)
    model = load_model(
        entry["source"],
        revision=entry.get("revision", ""),
        dtype=study.config.model.dtype,
        device=device,
        attention=attention,
        placement=placement,
    )
    return model, tracked_modules(model, study.config.model.modules), device_of(model) if placement else device
