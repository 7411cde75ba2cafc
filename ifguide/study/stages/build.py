"""What each stage does: reads the artefacts before it, computes, writes its own into the folder it is given.

Every function has the same form, `build_<stage>(study, unit, folder, progress)`; `ifguide.study.stage_table` names it.
Those of stages with a batch are called in every process of a run (see `ifguide.runtime.distributed`): all compute, the
main one writes.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ifguide.config.attributions import computed_kinds
from ifguide.config.names import BASE, DEFAULT
from ifguide.data.by_document import sum_by_document
from ifguide.data.chat import TOKENS
from ifguide.data.corpus_writer import build_corpus as tokenise_corpus
from ifguide.data.packing import DroppedRows
from ifguide.data.queries import read_sets
from ifguide.errors import ConfigError, InputError, NumericalError
from ifguide.models.loading import bos_context, load_config, load_tokenizer
from ifguide.runtime.distributed import current
from ifguide.runtime.progress import Progress, report_part
from ifguide.selection.index.build import build_index as index_scores
from ifguide.selection.saved import Selection, write_selection
from ifguide.storage import artifacts
from ifguide.storage.work import open_work
from ifguide.study.freshness import inputs_of, settings_of
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stage_table import reads_only
from ifguide.study.stages import checkpoints
from ifguide.study.stages.checkpoints import cut_training_rows, load_checkpoint, start_model
from ifguide.study.stages.editing import build_edit
from ifguide.study.stages.scoring import score_kinds, treat
from ifguide.study.stages.select import compute_selection
from ifguide.study.variants import PREFERENCE, recipe


def build_corpus(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Text -> tokens that know their document and their characters."""
    source, tokenizer = study.resolve(study.config.model.source), checkpoints.study_tokenizer(study)
    bos = None if study.config.corpus.text_field == TOKENS else bos_context(tokenizer)  # such rows have their own
    longest = 0 if reads_only(study.config) else study.max_length()
    report, chunk_length = report_part(progress, "documents"), longest - (bos is not None)
    corpus = tokenise_corpus(study.resolved("corpus"), tokenizer, folder, report, chunk_length=chunk_length)
    if skipped := corpus.summary["skipped"]:
        progress.message(f"{skipped:,} rows without text were left out")
    size = load_config(source, study.config.model.revision).get_text_config().vocab_size if longest else len(tokenizer)
    largest = max(int(corpus.token_ids.max()), tokenizer.eos_token_id or 0)
    if largest >= size:
        raise InputError(
            f"the tokenizer in {source!r} gives the token {largest:,}, but the model beside it knows only 0 to"
            f" {size - 1:,}; use the model's own tokenizer"
        )
    longest = longest or int(np.diff(corpus.offsets).max()) + 2  # without a model, whole documents, with bos and eos
    (folder / "layout.json").write_text(json.dumps({"max_length": longest, "bos": bos}), encoding="utf-8")


def build_queries(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """The query files -> prompt and completion tables, toxic and safe."""
    sets = study.query_sets()
    for number, queries in enumerate(sets, start=1):
        for kind, pairs in read_sets(study.resolved_queries(queries)).items():
            progress.message(pairs.attrs["summary"])
            pairs.attrs.clear()
            path = folder / f"{checkpoints.named_file(kind, queries)}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pairs.to_parquet(path, index=False)
        progress.report(number, len(sets), "pairs of sets")


def build_model(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Train the base model and keep early checkpoints, or take the given one."""
    from ifguide.training.train import TrackedRun, choose_checkpoint_steps, train_model

    config = study.config
    if config.model.mode == "asis":
        if current().is_main:
            _take_as_it_is(study, folder)
        return
    model, tokenizer = start_model(study)
    rows = cut_training_rows(study, tokenizer, None)
    steps = choose_checkpoint_steps(len(rows), config.training)
    with _resumable(study, unit, folder) as work:
        report, run = report_part(progress), TrackedRun(study.root, BASE)
        result = train_model(model, tokenizer, rows, config.training, None, work, report, steps, run)
    kept = [{"name": path.name, "source": f"checkpoints/{path.name}"} for path in result.checkpoints]
    if config.training.include_last_checkpoint or not kept:
        kept.append({"name": "last", "source": "final"})
    if current().is_main:
        artifacts.write_json(folder / "models.json", {"base": {"source": "final"}, "checkpoints": kept})


def _take_as_it_is(study: Study, folder: Path) -> None:
    config = study.config.model
    base = {"source": study.resolve(config.source), "revision": config.revision}
    numbered = enumerate(map(study.resolve, config.checkpoints), start=1)
    given = [{"name": f"checkpoint-{number}", "source": source, "revision": ""} for number, source in numbered]
    # the weights stay where they are; with their hashes in it, this file changes when they do, and so does all that
    # reads them
    files = {key: digest for key, digest in inputs_of(study, Unit("model")).items() if key.startswith("file ")}
    models = {"base": base, "checkpoints": given or [{"name": "given", **base}], "files": files}
    artifacts.write_json(folder / "models.json", models)


def build_factors(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """EK-FAC factors of each checkpoint, fitted on the corpus."""
    names, precisions = study.checkpoint_names(), {}
    for number, name in enumerate(names):
        loaded: tuple = (None, {}, "cpu")
        if study.config.factors.strategy != "identity":
            loaded = load_checkpoint(study, name)
            precisions[name] = {"products": checkpoints.factor_products(study, loaded[-1]) or "float32"}
        passes, eigenbases = report_part(progress, part=number, parts=len(names)), report_part(progress, "eigenbases")
        path = folder / name / checkpoints.FACTORS
        checkpoints.fit_checkpoint(
            study, path, *loaded, tell=progress.message, report=passes, report_eigenbases=eigenbases
        )
        del loaded  # before the next one
    _write_notes({"factors": precisions}, folder)


def _write_notes(notes: dict, folder: Path) -> None:
    """What the stage found out while it ran, for the manifest."""
    if current().is_main:
        artifacts.write_json(folder / artifacts.NOTES, notes)


def build_direction(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Queries and factors of each checkpoint -> the direction v."""
    names, sets = study.checkpoint_names(), study.query_sets()
    for number, (name, queries) in enumerate(itertools.product(names, sets)):
        if queries == sets[0]:
            model, modules, device = load_checkpoint(study, name)
            factors = checkpoints.read_factors(study, name, str(device))

        def report(turn: int, of: int, number: int = number):
            return report_part(progress, "queries", part=number * of + turn, parts=len(names) * len(sets) * of)

        layers = checkpoints.stream_direction(study, model, modules, factors, queries, report)
        _write_layers(layers, model, modules, folder / name / checkpoints.direction_file(queries))
        if queries == sets[-1]:
            del layers, model, modules  # before the next one


def build_scores(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Every kind of score of each token at each checkpoint, along each pair of query sets, and put together over the
    checkpoints."""
    settings, names, sets = study.config.scores, study.checkpoint_names(), study.query_sets()
    kinds = computed_kinds(settings)
    notes = score_kinds(study, unit, folder, progress, kinds, checkpoints=names, treatment=settings, sets=sets)
    _write_notes(notes, folder)


def build_index(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """The index of each kind of scores, so that what any threshold selects comes without a scan."""
    corpus = study.corpus()
    tokenizer = load_tokenizer(str(corpus.folder / "tokenizer"), "")
    pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    kinds = study.kinds(selecting=True)
    for number, kind in enumerate(kinds):
        (folder / kind).mkdir()
        try:
            report = report_part(progress, part=number, parts=len(kinds))
            index_scores(folder / kind, study.scores(kind), corpus, pieces, report=report)
        except NumericalError as error:
            remedy = f"compute them again with `ifguide run {study.name} --force scores`"
            raise NumericalError(f"{kind}: {error}; {remedy}") from error


def build_selection(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """The default selection, or one of its controls."""
    kind = "influence" if unit.name == DEFAULT else "borrowed" if unit.name in study.config.borrowed else unit.name
    selection = compute_selection(study, study.config.selection, name=unit.name, kind=kind)
    if kind not in ("influence", "random"):
        _require_tokens(selection)
    write_selection(selection, folder)


def _require_tokens(selection: Selection) -> None:
    if not selection.settings["n_selected"]:
        remedy = "leave it out, or choose another on the Threshold page or with `ifguide select`"
        raise ConfigError(f"selection {selection.name!r} holds no token to train without; {remedy}")


def build_documents(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """What the document list shows of the corpus, or of one selection."""
    from ifguide.study.stages.document_table import write_table

    write_table(study, unit, folder, report_part(progress, "documents"))


def build_baseline(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """One score a token by another method, or from a file, treated as the study's own scores are."""
    from ifguide.study.stages.baselines import read_scores, score_baseline

    if imported := study.config.imported.get(unit.name):
        scores, matched = read_scores(study.corpus(), study.resolve(imported.path))
        _write_notes({"matched": matched}, folder)
    parts = list(scores) if imported else score_baseline(study, unit, progress)
    settings = study.config.scores
    if unit.name == "classifier-documents":  # documents are left out whole, so nothing is pooled
        settings = replace(settings, pooling=0.0)
    treat(study.corpus(), parts, folder / "scores.npy", settings)


def build_suppress(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Train again from the same start without the selected tokens, in the way that the model's recipe says."""
    from ifguide.training.train import TrackedRun, train_model

    if unit.name == PREFERENCE:
        _train_by_preference(study, folder, progress)
        return
    variant = recipe(study.config, unit.name)
    selection = study.selection(variant.selection)
    _require_tokens(selection)
    if variant.method == "edit":
        _write_notes({"edit": build_edit(study, variant, folder, progress)}, folder)
        return
    model, tokenizer = start_model(study)
    mask = np.asarray(selection.mask)
    rows = cut_training_rows(study, tokenizer, mask)
    if variant.method == "drop":
        hit = sum_by_document(mask, np.asarray(study.corpus().offsets)) > 0
        rows = DroppedRows(rows, hit)
    with _resumable(study, unit, folder) as work:
        report, run = report_part(progress), TrackedRun(study.root, unit.name)
        training = replace(study.config.training, seed=study.config.training.seed + variant.seed)
        train_model(model, tokenizer, rows, training, variant, work, report, run=run)


def _train_by_preference(study: Study, folder: Path, progress: Progress) -> None:
    """The finished base model, taught to prefer safe completions."""
    from ifguide.training.preference import pair_queries, prefer_safe

    checkpoints.require_one_process("the baseline `dpo`")
    config, toxic = study.config, study.queries("toxic")
    pairs = pair_queries(toxic, study.queries("safe"))
    progress.message(f"dpo: {len(pairs):,} of {len(toxic):,} toxic queries have a safe one with the same prompt")
    _write_notes({"dpo": {"pairs": len(pairs), "toxic_queries": len(toxic)}}, folder)
    model, _, _ = load_checkpoint(study, BASE)
    tokenizer, training = checkpoints.study_tokenizer(study), config.training
    size = {"batch_size": training.batch_size, "max_length": checkpoints.read_layout(study)["max_length"]}
    report = report_part(progress, "steps")
    prefer_safe(model, tokenizer, pairs, config.baselines, folder, **size, seed=training.seed, report=report)


@contextlib.contextmanager
def _resumable(study: Study, unit: Unit, folder: Path) -> Iterator[Path]:
    """A folder for a training that outlives a kill; all but the training's state then moves into `folder`."""
    from ifguide.training.state import STATE

    def open_place() -> str:
        settings = settings_of(study, unit)  # a run with half the batch takes the same steps
        settings["rows"] = settings.pop("training.batch_size") * settings.pop("training.gradient_accumulation")
        return str(open_work(study.root, unit.work, {"inputs": inputs_of(study, unit), "settings": settings}))

    work = Path(current().decide(open_place))
    yield work
    if current().is_main:
        for part in work.iterdir():
            if not part.name.startswith(STATE):
                part.rename(folder / part.name)


def build_evaluate(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """Complete the prompts, judge the completions, measure what else the model can do."""
    from ifguide.study.stages.evaluating import evaluate_unit

    evaluated = evaluate_unit(study, unit, progress)
    if not evaluated:
        return
    metrics, samples, heldout = evaluated
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")  # perplexity may be infinite
    samples.to_parquet(folder / "samples.parquet", index=False)
    heldout.to_parquet(folder / "heldout.parquet", index=False)


def _write_layers(layers: Iterator[tuple], model, modules: dict, path: Path) -> None:
    """What every process computes layer by layer, written once."""
    from ifguide.influence.ekfac import accumulation_dtype
    from ifguide.models.layers import layer_shape

    if not current().is_main:
        for _ in layers:
            pass
        return
    path.parent.mkdir(exist_ok=True)
    shapes: dict = {name: layer_shape(module) for name, module in modules.items()}
    with artifacts.TensorWriter(path, shapes, accumulation_dtype(model)) as file:
        for name, v in layers:
            file.write(name, v)
