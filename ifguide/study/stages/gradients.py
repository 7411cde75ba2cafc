"""The gradient index: a compressed gradient of every document, so that an answer is traced through the whole corpus by
one product."""

import warnings
from pathlib import Path

import numpy as np

from ifguide.config.names import DEFAULT
from ifguide.errors import ConfigError, NumericalError
from ifguide.runtime.progress import Progress, report_part
from ifguide.storage import artifacts
from ifguide.storage.shards import ShardStore, plan_shards
from ifguide.storage.work import open_work
from ifguide.study.freshness import inputs_of, require_fresh, settings_of, unit_state
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages import checkpoints
from ifguide.study.stages.editing import load_base, read_curvature
from ifguide.study.variants import edit_recipe

LARGE = 20_000
"""From this many documents on, candidates by words and scores are too few to trace an answer by."""
SHARD_TOKENS = 1 << 18
"""A killed build loses at most about this many tokens."""
ROWS, COORDINATES = "gradients.npy", "coordinates.safetensors"


class GradientIndex:
    """The documents' φ, see `ifguide.influence.compressed`: float16 (D, K), memory-mapped."""

    def __init__(self, study: Study, unit: Unit):
        """A StaleError: it is missing, damaged, or of another corpus or model."""
        from ifguide.influence.compressed import Coordinates

        require_fresh(study, unit, f"index-gradients {study.name} --dimensions {unit.name}")
        folder = study.folder(unit)
        fields: dict[str, dict] = {}
        for name, tensor in artifacts.load_tensors(folder / COORDINATES).items():
            layer, field = name.rsplit("|", 1)
            fields.setdefault(layer, {})[field] = tensor
        layers = artifacts.read_part(folder, artifacts.NOTES)["layers"]
        self.kept = {layer: Coordinates(**fields[layer]) for layer in layers}
        self.rows = artifacts.load_array(folder / ROWS).reshape(study.corpus().n_documents, -1)

    def nearest(self, direction: dict, n: int) -> np.ndarray:
        """The n documents, int64, that pushed furthest toward what a direction v is of, the furthest first."""
        from ifguide.influence.compressed import compress_direction

        products = multiply(self.rows, compress_direction(direction, self.kept))
        n = min(n, len(products))
        best = np.argpartition(-products, n - 1)[:n]
        return best[np.argsort(-products[best], kind="stable")]


def multiply(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The product float32 (D,) of float16 (D, K) with a vector (K,), which is rounded to float16: a thousandth of the
    products' spread."""
    import torch

    length = float(np.linalg.norm(vector)) or 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, that it could write to read-only memory
        matrix = torch.from_numpy(np.asarray(rows))
    return (matrix @ torch.from_numpy(vector / length).half()).float().numpy() * length


def judge_indexes(study: Study) -> dict[Unit, str]:
    """The gradient indexes that are there, the largest last, and why each is out of date; empty: it is not."""
    names = sorted(filter(str.isdigit, study.names_of("gradients")), key=int)
    return {unit: unit_state(study, unit).reason for unit in (Unit("gradients", name) for name in names)}


def open_index(study: Study) -> GradientIndex | None:
    """The largest gradient index that is of the study as it is."""
    fresh = [unit for unit, reason in judge_indexes(study).items() if not reason]
    return GradientIndex(study, fresh[-1]) if fresh else None


def explain_index(study: Study) -> str:
    """What a reader of a trace should know of the index, with the command; empty where all is well."""
    reasons, command = [*judge_indexes(study).values()], f"`ifguide index-gradients {study.name}`"
    if reasons and all(reasons):
        return f"The gradient index is out of date ({reasons[-1]}); {command} makes it again."
    if not reasons and (n := study.corpus().n_documents) > LARGE:
        return f"Only a few of {n:,} documents were scored; {command} lets a trace search all of them."
    return ""


def build_gradients(study: Study, unit: Unit, folder: Path, progress: Progress) -> None:
    """One pass over the corpus at the finished base model, in shards that outlive a kill."""
    from ifguide.influence.batches import make_batches
    from ifguide.influence.compressed import choose_coordinates, compress_documents

    checkpoints.require_one_process("index-gradients")
    model, modules, device = load_base(study)
    config, corpus = study.config.direction, study.corpus()
    factors = read_curvature(study, edit_recipe(study.config, DEFAULT, {}), str(device))
    if not factors:
        raise ConfigError('index-gradients needs eigenvectors of the curvature; set factors.strategy = "ekfac"')
    kept = choose_coordinates(factors, int(unit.name), config.damping, config.damping_unit)
    tensors = {f"{layer}|{field}": part for layer, one in kept.items() for field, part in vars(one).items()}
    artifacts.save_tensors(tensors, folder / COORDINATES)
    artifacts.write_json(folder / artifacts.NOTES, {"layers": [*kept]})
    work = open_work(study.root, unit.stage, {"inputs": inputs_of(study, unit), "settings": settings_of(study, unit)})
    bounds, offsets = plan_shards(corpus.offsets, SHARD_TOKENS), np.asarray(corpus.offsets)
    store = ShardStore(work, ("gradients",), np.arange(corpus.n_documents + 1), bounds)
    tell = report_part(progress, "tokens")
    for shard, (first, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        if not store.has(shard):
            sequences = checkpoints.corpus_sequences(study, documents=(first, stop))
            batches = make_batches(sequences, study.config.compute.tokens_per_batch)

            def report(done: int, first: int = first) -> None:
                tell(min(int(offsets[first]) + done, corpus.n_tokens), corpus.n_tokens)

            values = compress_documents(model, modules, kept, batches, offsets[first : stop + 1], report)
            if not (np.abs(values) <= np.finfo(np.float16).max).all():
                raise NumericalError(
                    "index-gradients: expected gradients below 65504, got larger or NaN; check the weights"
                )
            store.write(shard, {"gradients": values.astype(np.float16)})
        tell(int(offsets[stop]), corpus.n_tokens)
    parts = (np.load(store.path(shard), mmap_mode="r", allow_pickle=False).ravel() for shard in range(len(store)))
    artifacts.save_blocks(parts, folder / ROWS, np.float16)
