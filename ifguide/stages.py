"""What each stage does: reads the artefacts before it, computes, writes its own into the folder it is given.

Every function has the same form, `build_<stage>(study, unit, folder, progress)`, and the pipeline calls it by name.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ifguide import artifacts
from ifguide.config import config_to_dict
from ifguide.corpus import TokenizedCorpus, chunk_documents
from ifguide.corpus import build_corpus as tokenise_corpus
from ifguide.errors import ConfigError, InputError, NumericalError
from ifguide.progress import Progress
from ifguide.selections import compute_selection, write_selection
from ifguide.shards import ShardStore, open_work, plan_shards
from ifguide.study import BASE, DEFAULT, Study, Unit

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
    """The two query files -> prompt and completion tables."""
    from ifguide.queries import read_queries

    config = study.resolved("queries")
    for number, kind in enumerate(("toxic", "safe")):
        pairs = read_queries(getattr(config, kind), kind=kind, config=config, max_queries=config.max_queries)
        progress.message(pairs.attrs["summary"])
        pairs.attrs.clear()
        pairs.to_parquet(folder / f"{kind}.parquet", index=False)
        progress.report(number + 1, 2, "sets")


def build_model(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Train the base model and keep early checkpoints, or take the given one as it is."""
    from ifguide.training import choose_checkpoint_steps, train_model

    config = study.config
    if config.model.mode == "asis":
        _take_as_it_is(study, folder)
        return
    model, tokenizer = _start_model(study)
    rows = _training_rows(study, tokenizer, None)
    steps = choose_checkpoint_steps(len(rows), config.training)
    result = train_model(model, tokenizer, rows, config.training, None, folder, _reporter(progress), steps)
    kept = [{"name": path.name, "source": f"checkpoints/{path.name}"} for path in result.checkpoints]
    if config.training.include_last_checkpoint or not kept:
        kept.append({"name": "last", "source": "final"})
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
    from ifguide.influence.batches import make_batches
    from ifguide.influence.ekfac import fit_factors

    config = study.config.factors
    names = study.checkpoint_names()
    for number, name in enumerate(names):
        (folder / name).mkdir()
        if config.strategy == "identity":
            artifacts.save_tensors({}, folder / name / "factors.safetensors")
            continue
        model, modules, _ = _load_checkpoint(study, name)
        sequences = _corpus_sequences(study, max_tokens=config.max_tokens, seed=config.seed)
        batches = lambda sequences=sequences: make_batches(sequences, study.config.compute.tokens_per_batch)  # noqa: E731
        factors = fit_factors(
            model,
            modules,
            batches,
            labels=config.labels,
            seed=config.seed,
            report=_reporter(progress, part=number, parts=len(names)),
        )
        tensors = {
            f"{layer}|{part}": getattr(f, part)
            for layer, f in factors.items()
            for part in ("input_vectors", "output_vectors", "eigenvalues")
        }
        artifacts.save_tensors(tensors, folder / name / "factors.safetensors")


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

    config, layout = study.config.direction, _layout(study)
    tokenizer = _tokenizer(study)
    encoded = {
        kind: encode_queries(study.queries(kind), tokenizer, layout["max_length"], bos_id=layout["bos"])
        for kind in ("toxic", "safe")
    }
    names = study.checkpoint_names()
    kinds = ("toxic", "safe") if config.differential else ("toxic",)
    for number, name in enumerate(names):
        model, modules, device = _load_checkpoint(study, name)
        gradients = {}
        for turn, kind in enumerate(kinds):
            gradients[kind] = query_gradient(
                model, modules, encoded[kind], weighting=config.weighting, objective=config.objective,
                tokens_per_batch=study.config.compute.tokens_per_batch,
                report=_reporter(progress, "queries", part=number * len(kinds) + turn, parts=len(names) * len(kinds)),
            )  # fmt: skip
        direction = differential_direction(
            gradients["toxic"], gradients.get("safe"), _read_factors(study, name, str(device)), config.damping
        )
        (folder / name).mkdir()
        artifacts.save_tensors(direction, folder / name / "direction.safetensors")


def build_scores(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """One own-loss and one position score a token and checkpoint, and their mean over checkpoints."""
    from ifguide.influence.attribution import average_checkpoints, position_scores
    from ifguide.influence.losses import SplitModel

    corpus, names = study.corpus(), study.checkpoint_names()
    key = {
        "inputs": study.inputs(unit),
        "settings": study.settings(unit),
        "compute": config_to_dict(study.config.compute),
    }
    work = open_work(study.root, unit.stage, key)
    turns = [
        (name, kind)
        for name in names
        for kind in ("own_loss", "position")
        if kind == "own_loss" or study.config.scores.position
    ]
    for number, (name, kind) in enumerate(turns):
        (folder / name).mkdir(exist_ok=True)
        model, modules, device = _load_checkpoint(study, name, attention="eager" if kind == "own_loss" else "sdpa")
        direction = artifacts.load_tensors(
            study.folder(Unit("direction")) / name / "direction.safetensors", device=str(device)
        )
        report = _reporter(progress, part=number, parts=len(turns))
        if kind == "own_loss":
            score, described = _own_loss_scorer(study, SplitModel(model), modules, direction, device)
            (folder / name / "derivative.json").write_text(json.dumps(described), encoding="utf-8")
            _score_into(study, work, folder / name, ("own_loss", "token_loss"), score, device, report)
        else:
            score = functools.partial(position_scores, SplitModel(model), modules, direction)
            _score_into(study, work, folder / name, ("position",), score, device, report)
    for kind in ("own_loss", "position", "token_loss"):
        parts = [
            artifacts.load_array(folder / name / f"{kind}.npy")
            for name in names
            if (folder / name / f"{kind}.npy").exists()
        ]
        if parts:
            average = _mean_loss(parts) if kind == "token_loss" else average_checkpoints(parts, corpus.valid())
            np.save(folder / f"{kind}.npy", average, allow_pickle=False)


def _mean_loss(losses: list[np.ndarray]) -> np.ndarray:
    return np.mean(losses, axis=0, dtype=np.float64).astype(np.float32)


def _own_loss_scorer(study: Study, split, modules, direction, device):
    """A function batch -> (scores, losses) by the configured derivative, and what it is, for the record."""
    from ifguide.influence.attribution import own_loss_scores
    from ifguide.influence.batches import make_batches
    from ifguide.influence.central import AGREEMENT, CentralDifference, choose_step

    exact = functools.partial(own_loss_scores, split, modules, direction), {"method": "jvp"}
    if study.config.scores.derivative == "jvp":
        return exact
    sequences = _corpus_sequences(study, max_tokens=SAMPLE_TOKENS, seed=study.config.factors.seed)
    sample = [batch.to(device) for batch in make_batches(sequences, study.config.compute.tokens_per_batch)]
    step = choose_step(split.model, modules, direction, sample)
    found = {"epsilon": step.epsilon, "correlation": step.correlation, "sample_tokens": step.n_tokens}
    if study.config.scores.derivative == "auto" and step.correlation < AGREEMENT:
        return exact[0], {"method": "jvp", "central": found}
    return CentralDifference(split.model, modules, direction, step.epsilon).scores, {"method": "central", **found}


def _score_into(study: Study, work: Path, folder: Path, names: tuple[str, ...], score, device, report) -> None:
    """Score the corpus with a function batch -> (scores, losses), shard by shard, into `.npy` files of one value a token."""
    from ifguide.influence.attribution import score_corpus
    from ifguide.influence.batches import make_batches

    corpus = study.corpus()
    bounds = plan_shards(corpus.offsets)
    store = ShardStore(work / folder.name, names, corpus.offsets, bounds)
    sequences = _corpus_sequences(study)
    for shard in range(len(store)):
        first, stop = int(store.tokens[shard]), int(store.tokens[shard + 1])
        if not store.has(shard):
            values = {name: np.zeros(stop - first, dtype=np.float32) for name in names}
            score_corpus(
                make_batches(
                    sequences.of_documents(bounds[shard], bounds[shard + 1]), study.config.compute.tokens_per_batch
                ),
                lambda batch: dict(zip((names[0], "token_loss"), score(batch), strict=True)),
                values,
                first=first,
                device=device,
                report=lambda done, first=first, stop=stop: report(min(first + done, stop), corpus.n_tokens),
            )
            store.write(shard, values)
        report(stop, corpus.n_tokens)
    store.assemble(folder)


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
    """Complete the prompts, judge the completions, measure perplexity on held-out text."""
    from ifguide.evaluate import evaluate_model
    from ifguide.evaluate.prompts import read_heldout, read_prompts
    from ifguide.evaluate.toxicity import load_scorer
    from ifguide.models import load_model, load_tokenizer, pick_device

    config = study.resolved("evaluate")
    if unit.name == BASE:
        base = study.models()["base"]
        source, revision = base["source"], base.get("revision", "")
    else:
        source, revision = str(study.folder(Unit("suppress", unit.name)) / "final"), ""
    device = pick_device(study.config.compute.device)
    model = load_model(source, revision=revision, device=device)
    tokenizer = load_tokenizer(source, revision)
    prompts = (
        read_prompts(config.prompts, config)
        if config.prompts
        else list(study.queries("toxic")["prompt"])[: config.n_prompts or None]
    )
    heldout = read_heldout(config.heldout, config) if config.heldout else []
    metrics, samples = evaluate_model(
        model,
        tokenizer,
        config,
        prompts,
        heldout,
        load_scorer(config.scorer, device=str(device)),
        report=_reporter(progress, "completions"),
    )
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    samples.to_parquet(folder / "samples.parquet", index=False)


# ---- what several stages need ----


def _reporter(progress: Progress, unit: str = "tokens", *, part: int = 0, parts: int = 1) -> Callable[[int, int], None]:
    """A callback (done, total) that reports part `part` of `parts` equal parts of a stage."""
    return lambda done, total: progress.report(part * total + done, parts * total, unit)


def _layout(study: Study) -> dict:
    return artifacts.read_json(study.folder(Unit("corpus")) / "layout.json")


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

    corpus, layout, packing = study.corpus(), _layout(study), study.config.training.packing
    bos = None if packing else layout["bos"]
    length = layout["max_length"] - (bos is not None)
    rows = pack_rows(corpus.token_ids, np.asarray(corpus.offsets), length, tokenizer.eos_token_id, mask, pack=packing)
    return rows if bos is None else BosRows(rows, bos)


def _load_checkpoint(study: Study, name: str, attention: str = "sdpa"):
    """One scoring checkpoint on its device, with its tracked layers."""
    from ifguide.models import load_model, pick_device, tracked_modules

    entry = next(c for c in study.models()["checkpoints"] if c["name"] == name)
    device = pick_device(study.config.compute.device)
    model = load_model(
        entry["source"],
        revision=entry.get("revision", ""),
        dtype=study.config.model.dtype,
        device=device,
        attention=attention,
    )
    return model, tracked_modules(model, study.config.model.modules), device


def _corpus_sequences(study: Study, *, max_tokens: int = 0, seed: int = 0):
    """The corpus as chunk sequences; with `max_tokens`, whole documents drawn at random up to about that many tokens."""
    from ifguide.influence.batches import corpus_sequences

    corpus: TokenizedCorpus = study.corpus()
    layout, offsets = _layout(study), np.asarray(corpus.offsets)
    length = layout["max_length"] - (layout["bos"] is not None)
    chunks = chunk_documents(offsets, length)
    if max_tokens and max_tokens < corpus.n_tokens:
        order = np.random.default_rng(seed).permutation(corpus.n_documents)
        running = np.cumsum(np.diff(offsets)[order])
        taken = order[: max(1, int(np.searchsorted(running, max_tokens)))]
        chunks = chunks[np.isin(chunks[:, 0], taken)]
    return corpus_sequences(corpus.token_ids, offsets, chunks, layout["bos"])
