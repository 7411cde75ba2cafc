"""Scores that bergson and kronfluence wrote, or a sample of our own shards, made into a study of their documents: to
read, to select, to export.

Positive is what pushes toward the queries, as in ours. bergson notes which sign that is (`score_cfg.higher_is_better`);
in kronfluence's it is positive where `compute_measurement` is a loss. Row t of a text is the position that predicts
token t + 1, and goes to that token; a score of a document goes to all its tokens. Of several queries the mean is taken.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ifguide.config.schema import CorpusConfig, ImportedConfig, ModelConfig, ScoresConfig, SelectionConfig, StudyConfig
from ifguide.data.chat import TOKENS, unpadded
from ifguide.data.corpus_writer import document_id
from ifguide.data.readers import has_field, read_rows
from ifguide.errors import InputError
from ifguide.models.loading import bos_context, load_tokenizer
from ifguide.runtime.progress import Progress, report_part
from ifguide.study.drafts import Draft
from ifguide.study.lineage import Unit
from ifguide.study.pipeline import build, run_study
from ifguide.study.reading import Study
from ifguide.study.sharing import shard_sample
from ifguide.study.shelf import INPUTS, free_place
from ifguide.study.stages.checkpoints import study_tokenizer

_FLOATS = {"bool": "?", "float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2"}


@dataclass(frozen=True, kw_only=True)
class PeerScores:
    """What `tool` wrote of R texts: `values` float (V,), text after text, of which each has those between its
    `offsets`, int64 (R+1,); by token, or one a text. A `sign` of -1: negative ones push toward the queries; None: that
    is not noted. `tokenizer` is the one that is noted."""

    tool: str
    values: np.ndarray
    offsets: np.ndarray
    by_token: bool
    sign: int | None = 1
    tokenizer: str = ""


def read_peer_scores(folder: Path) -> PeerScores:
    """The scores in a folder of bergson's or kronfluence's. An InputError: there are none, or they are damaged."""
    remedy = "name the folder of a finished run, with bergson's scores.bin or kronfluence's pairwise_scores.safetensors"
    try:
        if (folder / "pairwise_scores.safetensors").is_file():
            return _read_kronfluence(folder / "pairwise_scores.safetensors")
        for store in (folder, folder / "scores"):
            if (store / "scores.bin").is_file() and store.suffix != ".part":  # a run that has not ended
                return _read_bergson(store)
    except Exception as error:  # a damaged file may raise any
        raise InputError(f"the scores in {folder} cannot be read ({error!r}); copy or make them again") from error
    if (folder / "gradients.bin").is_file():
        remedy = (
            "an index holds gradients; score a data set against it with `bergson score`, and name that run's folder"
        )
    raise InputError(f"no scores in {folder}; {remedy}")


def _read_bergson(folder: Path) -> PeerScores:
    import yaml

    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    kinds = [_FLOATS[kind] for kind in info["dtype"]["formats"]]  # never an object, which would be a pickle
    layout, by_token = np.dtype(info["dtype"] | {"formats": kinds}), bool(info["attribute_tokens"])
    stored = np.memmap(folder / "scores.bin", layout, "r", shape=(info["num_rows"],))
    columns = [stored[f"score_{number}"] for number in range(info["num_scores"])]
    if "<u2" in kinds:  # bfloat16 is the upper half of float32
        columns = [(column.astype("<u4") << 16).view("<f4") for column in columns]
    steps: dict = {}
    for place in (*[folder.parent] * (folder.name == "scores"), folder):  # as `bergson magic` lays them out
        if (place / "config.yaml").is_file():
            for entry in yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))["steps"]:
                steps |= entry
    step: dict = next((step for step in reversed(steps.values()) if "score_cfg" in (step or {})), {})
    higher, made_with = step.get("score_cfg", {}).get("higher_is_better", bool(step)), step.get("index_cfg", {})
    return PeerScores(
        tool="bergson",
        values=columns[0] if len(columns) == 1 else np.asarray(np.mean(columns, axis=0, dtype=np.float64)),
        offsets=np.load(folder / "offsets.npy", allow_pickle=False) if by_token else np.arange(len(stored) + 1),
        by_token=by_token,
        sign=1 if higher else -1 if step or "magic" in steps else None,
        tokenizer=str(made_with.get("tokenizer") or made_with.get("model") or ""),
    )


def _read_kronfluence(file: Path) -> PeerScores:
    from safetensors import safe_open

    with safe_open(file, "pt") as stream:  # (queries, texts[, tokens]) of each module, or of all
        modules = list(stream.keys())
        values = sum(stream.get_tensor(module).double().mean(0) for module in modules).numpy()
    offsets = np.arange(len(values) + 1) * values[:1].size
    return PeerScores(tool="kronfluence", values=values.ravel(), offsets=offsets, by_token=values.ndim == 2)


def open_scores(
    name: str,
    folder: Path,
    corpus: CorpusConfig,
    tokenizer: str = "",
    *,
    negate: bool | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Study:
    """Make a study of others' scores, without a model. Of the corpus, rows of `input_ids` are taken as they are, others
    are cut by the tokenizer: a folder, a hub id, or empty for the one that bergson noted. `negate` says whether
    negative scores push toward the queries; None: as is noted.

    Raises:
        InputError: something is missing or does not fit; names the row. No study is made.
        ConfigError: the name is unsafe or taken.
    """
    free_place(name, cache)
    scores = read_peer_scores(folder)
    sign = scores.sign if negate is None else -1 if negate else 1
    if not (source := tokenizer or scores.tokenizer):
        raise InputError(f"{folder} does not name the tokenizer of what was scored; name it with --tokenizer")
    if sign is None:
        signs = "--no-negate if high scores push toward the queries, as `bergson score` writes them, else --negate"
        raise InputError(f"{folder} does not say what the scores' sign means; give {signs}")
    path, source = (str(Path(given).absolute()) if Path(given).exists() else given for given in (corpus.path, source))
    first = next(read_rows(path), None)
    field = TOKENS if first and has_field(first, TOKENS) else corpus.text_field
    described = f"Scores of {'tokens' if scores.by_token else 'documents'} by {scores.tool}."
    given = replace(corpus, path=path, text_field=field)
    config = _configure(described, source, given, scores.tool, f"{INPUTS}/{scores.tool}.npy")

    def place(study: Study) -> None:
        build(study, [Unit("corpus")], progress=progress)
        _place_scores(scores, study, sign)

    return _make(name, config, place, cache, progress)


def open_shards(
    name: str,
    folder: Path,
    tokenizer: str,
    treatment: ScoresConfig,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Study:
    """Make a study of a sample of the documents in a folder of score shards, which stay where they are, and of a sketch
    of all, see `ifguide.study.sharing.shard_sample`. `treatment` says how scores are averaged and pooled; `tokenizer`
    is a folder or a hub id. Errors as `open_scores`, an InputError names the shard."""
    free_place(name, cache)
    source = str(Path(tokenizer).absolute()) if Path(tokenizer).exists() else tokenizer
    reader, report = load_tokenizer(source), report_part(progress, "shards") if progress else lambda done, total: None
    sample, sketch = shard_sample.sample_shards(folder, treatment, report)
    sample = [document for document in sample if str(reader.decode(document.token_ids)).strip()]  # others are none
    whole = f"{sketch.n_documents:,} documents, {sketch.n_tokens:,} tokens"
    described = f"A sample of the {whole}, in {len(sketch.files):,} shards of {sketch.folder}."
    path = f"{shard_sample.PLACE}/sample.parquet"
    corpus = CorpusConfig(path=path, text_field=TOKENS, id_field="document_id", source_field="source")
    config = _configure(described, source, corpus, shard_sample.KIND, path)
    return _make(name, config, lambda study: shard_sample.save_sample(sample, sketch, study.root), cache, progress)


def _configure(description: str, tokenizer: str, corpus: CorpusConfig, kind: str, scores: str) -> StudyConfig:
    """The settings of a study whose only scores are imported from a file, as a kind."""
    return StudyConfig(
        description=description,
        model=ModelConfig(source=tokenizer, mode="asis"),
        corpus=corpus,
        scores=ScoresConfig(own_loss=False, probe=False, combined=False, pooling=0.0),
        imported={kind: ImportedConfig(path=scores)},
        selection=SelectionConfig(attribution=kind, controls=()),
    )


def _make(
    name: str, config: StudyConfig, place: Callable[[Study], None], cache: Path | None, progress: Progress | None
) -> Study:
    """A study whose files `place` writes before it is run; none is left if that fails."""
    draft = Draft(cache)
    try:
        study = Study.create(Draft.NAME, config, draft.folder)
        place(study)
        run_study(study, progress=progress)
        return Study.open(name, draft.finish(name).parent)
    finally:
        draft.discard()


def _place_scores(scores: PeerScores, study: Study, sign: int) -> None:
    """Write scores float32 (N,) in the corpus's order, as a file that the study imports."""
    corpus, config, n_scored, n_rows = study.corpus(), study.resolved("corpus"), len(scores.offsets) - 1, 0
    numbers, bos = {id: n for n, id in enumerate(corpus.ids())}, bos_context(study_tokenizer(study)) is not None
    place = study.root / study.config.imported[scores.tool].path
    place.parent.mkdir()
    placed = np.lib.format.open_memmap(place, "w+", np.float32, (corpus.n_tokens,))
    columns = filter(None, (config.text_field, "attention_mask", config.id_field))
    for n_rows, row in enumerate(read_rows(config.path, text_field=config.text_field, columns=columns), start=1):
        if n_rows > n_scored or (document := numbers.get(document_id(row, config.id_field))) is None:
            continue  # what has no text is no document
        start, stop = corpus.offsets[document : document + 2].tolist()
        values = sign * np.asarray(scores.values[scores.offsets[n_rows - 1] : scores.offsets[n_rows]])
        if scores.by_token:
            kept = np.arange(stop - start) + (bos and len(values) != stop - start - 1)
            length = kept[-1] + 1
            if config.text_field == TOKENS:
                kept, length = unpadded(row), len(row.values[TOKENS])
            trimmed = np.trim_zeros(values, "b") if scores.tool == "kronfluence" else values  # which pads with zeros
            if not len(trimmed) < length <= len(values) + 1:
                raise InputError(
                    f"{row.where}: expected {length - 1} scores for its {length} tokens, got {len(trimmed)}; name the"
                    " data set that was scored, with its input_ids, or the tokenizer that cut its texts"
                )
            values = values[kept[1:] - 1]
        placed[start + 1 : stop] = values
    if n_rows != n_scored:
        where = f"{config.path}, row {min(n_rows, n_scored) + 1}"
        raise InputError(f"{where}: expected {n_scored:,} rows, got {n_rows:,}; name the data set that was scored")
    placed.flush()
