"""A study's models, queries, directions and corpus as its stages need them: loaded, fitted, encoded, cut."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ifguide.config.names import BASE
from ifguide.data.by_document import draw_documents
from ifguide.data.packing import chunk_documents
from ifguide.data.stretches import overlap
from ifguide.errors import ConfigError, StaleError
from ifguide.runtime.distributed import current
from ifguide.storage import artifacts
from ifguide.storage.lock import read_record
from ifguide.storage.peak_memory import free_memory
from ifguide.storage.work import offload_folder
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

if TYPE_CHECKING:
    import torch

    from ifguide.influence.ekfac import LayerFactors
    from ifguide.influence.parts import Need
    from ifguide.models.layers import Layers

Direction = dict[str, "torch.Tensor"]
"""v, (O, I) a layer."""
FACTORS = "factors.safetensors"
PART = 0.5
"""Share of the free memory that one part of the layers may take; the rest is the activations' of a batch."""
FIT_BYTES = 1 << 28
"""What the layers of a batch of the fit read and give, on a processor."""


def require_one_process(what: str) -> None:
    """A ConfigError where several processes share the run."""
    if not current().alone:
        raise ConfigError(f"{what} takes one process; start it without torchrun or accelerate launch")


def named_file(what: str, queries: str = "") -> str:
    """The path of a pair of query sets' file in an artefact: at the top for the study's own, else in `extra/NAME/`."""
    return f"extra/{queries}/{what}" if queries else what


def direction_file(queries: str = "") -> str:
    """Name of the file of a direction."""
    return f"extra/{queries}.safetensors" if queries else "direction.safetensors"


def read_layout(study: Study) -> dict:
    """How the corpus is cut: `max_length` and the `bos` id that comes before each document, or None."""
    return artifacts.read_part(study.folder(Unit("corpus")), "layout.json")


def corpus_sequences(
    study: Study, *, documents: tuple[int, int] | None = None, chosen: np.ndarray | None = None, max_tokens=0, seed=0
):
    """Chunk sequences of the corpus: of its `documents` [first, stop), or all; of these only the `chosen` ones, counted
    from `first`, or with `max_tokens` those drawn at random by the seed up to about this many tokens."""
    from ifguide.influence.batches import CorpusSequences

    corpus, layout = study.corpus(), read_layout(study)
    first, stop = documents or (0, corpus.n_documents)
    offsets = np.asarray(corpus.offsets[first : stop + 1])
    chunks = chunk_documents(offsets, layout["max_length"] - (layout["bos"] is not None))
    if max_tokens and max_tokens < corpus.n_tokens:
        chosen = draw_documents(offsets, max_tokens, seed)
    if chosen is not None:
        chunks = chunks[np.isin(chunks[:, 0], chosen)]
    if corpus.trained is not None:  # a chunk's first token is context
        chunks = chunks[overlap(corpus.trained, chunks[:, 1] + 1, chunks[:, 2])]
    return CorpusSequences(corpus.token_ids, offsets, chunks, layout["bos"], corpus.trained)


def require_models(study: Study) -> None:
    """A StaleError for a study that was recorded without its models and tokenizer."""
    if read_record(study.root):
        raise StaleError(f"{study.name!r} was recorded without its models; give this command where it was built")


def study_tokenizer(study: Study):
    """The tokenizer that the corpus was cut with. A StaleError: the study was recorded without it."""
    from ifguide.models.loading import load_tokenizer

    require_models(study)
    return load_tokenizer(study.resolve(study.config.model.source), study.config.model.revision)


def encoded_queries(study: Study, kind: str, queries: str = "") -> list:
    """Token ids and completion masks of a query set, see `ifguide.data.queries.encode_queries`."""
    from ifguide.data.queries import encode_queries

    pairs, layout = study.queries(kind, queries), read_layout(study)
    return encode_queries(pairs, study_tokenizer(study), layout["max_length"], bos_id=layout["bos"])


def load_checkpoint(study: Study, name: str, attention: str | None = None):
    """One scoring checkpoint, or the finished base model, on its device, with its tracked layers; with
    `compute.device_map`, the device its inputs go to."""
    from ifguide.models.layers import device_of
    from ifguide.models.loading import tracked_modules

    models = study.models()
    entry = models["base"] if name == BASE else next(c for c in models["checkpoints"] if c["name"] == name)
    source, revision = entry["source"], entry.get("revision", "")
    model = place_model(study, source, revision, dtype=study.config.model.dtype, attention=attention)
    return model, tracked_modules(model, study.config.model.modules), device_of(model)


def place_model(study: Study, source: str, revision: str, *, dtype: str, attention: str | None = None):
    """A model on the study's device, or spread as `compute.device_map` says. A ConfigError: `device_map` with several
    processes; a StaleError: the study was recorded without it."""
    from ifguide.models.loading import Placement, load_model, pick_device

    require_models(study)
    compute, placement = study.config.compute, None
    if compute.device_map:
        require_one_process("compute.device_map")
        offload = offload_folder(study.root)
        placement = Placement(strategy=compute.device_map, max_memory=compute.max_memory, offload_folder=offload)
    device = pick_device(compute.device)
    return load_model(source, revision=revision, device=device, dtype=dtype, attention=attention, placement=placement)


def fit_checkpoint(
    study: Study, path: Path, model, modules: "Layers", device, *, tell: Callable[[str], None] | None = None, **reports
) -> None:
    """Write EK-FAC factors of a loaded model, as the study's settings want them, layer by layer into a file; an empty
    one for the identity, which needs no model. All processes take part, the main one writes. `tell` is called where the
    layers are fitted in several parts."""
    import torch

    from ifguide.influence.batches import make_batches
    from ifguide.influence.ekfac import accumulation_dtype, factor_shapes, stream_factors
    from ifguide.influence.parts import fit_bytes

    config, processes = study.config.factors, current()
    if processes.is_main:
        path.parent.mkdir(parents=True, exist_ok=True)
    if config.strategy == "identity":
        if processes.is_main:
            artifacts.save_tensors({}, path)
        return
    products = factor_products(study, device)
    sequences = corpus_sequences(study, max_tokens=config.max_tokens, seed=config.seed)
    size, share = fit_batch(modules, study.config.compute.tokens_per_batch), (processes.rank, processes.world_size)
    batches = functools.partial(make_batches, sequences, size, share=share)
    parts = divide_layers(study, model, modules, device, fit_bytes, config.partitions)
    if len(parts) > 1 and tell:
        tell(f"factors: the layers are fitted in {len(parts)} parts, to fit in memory")
    options: dict = {"labels": config.labels, "seed": config.seed, "processes": processes, **reports}
    options |= {"rank": config.rank, "parts": parts}
    options["products"] = getattr(torch, products) if products else None
    options["stored"] = torch.bfloat16 if config.dtype == "bfloat16" else None
    if not processes.is_main:
        stream_factors(model, modules, batches, lambda *_: None, **options)
        processes.wait()  # until the file is whole
        return
    named = factor_shapes(modules, config.rank).items()
    shapes = {f"{layer}|{field}": shape for layer, fields in named for field, shape in fields.items()}
    written = accumulation_dtype(model) if config.dtype == "float32" else torch.bfloat16

    def keep(layer: str, field: str, matrix: "torch.Tensor") -> None:
        file.write(f"{layer}|{field}", matrix.to(written))

    with artifacts.TensorWriter(path, shapes, written) as file:
        stream_factors(model, modules, batches, keep, **options)
    processes.wait()


def divide_layers(study: Study, model, modules: "Layers", device, need: "Need", n_parts: int = 0) -> "list[Layers]":
    """The layers in `n_parts` parts, the same in every process; 0: as few as the free memory allows."""
    from ifguide.influence.parts import divide, fewest_parts
    from ifguide.models.layers import find_shared_inputs

    shared = find_shared_inputs(model, modules)

    def count() -> int:
        free = free_memory(study.root)
        room = free["device"] if "cuda" in str(device) else free["host"]
        return len(fewest_parts(modules, shared, need, PART * room))

    return divide(modules, shared, n_parts or current().decide(count))


def fit_batch(modules: "Layers", most: int) -> int:
    """Tokens of a batch of the fit: `most`; on a processor no more than have about `FIT_BYTES` of activations, for a
    larger batch takes memory and no less time there."""
    from ifguide.influence.parts import shapes_of
    from ifguide.models.layers import device_of

    if device_of(next(iter(modules.values()))).type != "cpu":
        return most
    return min(most, max(256, FIT_BYTES // (4 * sum(map(sum, shapes_of(modules).values())))))


def factor_products(study: Study, device) -> str:
    """The dtype that `factors.products` means on a device; empty: that of the sums."""
    from ifguide.models.loading import has_fast_bfloat16

    setting = study.config.factors.products
    if study.config.model.dtype == "float64":
        return ""
    if setting == "auto":
        return "bfloat16" if has_fast_bfloat16(device) else ""
    return "" if setting == "float32" else setting


class StoredFactors(Mapping[str, "LayerFactors"]):
    """The EK-FAC factors in a file by layer, each read onto the device when it is asked for."""

    def __init__(self, path: Path, device: str):
        self._path, self._device = path, device
        self._fields: dict[str, list[str]] = {}
        for name in artifacts.tensor_names(path):
            layer, field = name.rsplit("|", 1)
            self._fields.setdefault(layer, []).append(field)

    def __getitem__(self, layer: str) -> "LayerFactors":
        from ifguide.influence.ekfac import LayerFactors

        names = [f"{layer}|{field}" for field in self._fields[layer]]
        tensors = artifacts.load_tensors(self._path, self._device, names)
        return LayerFactors(**{name.rsplit("|", 1)[1]: tensor for name, tensor in tensors.items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def read_factors(study: Study, checkpoint: str, device: str) -> StoredFactors | None:
    """A checkpoint's factors; None for the identity."""
    return StoredFactors(study.folder(Unit("factors")) / checkpoint / FACTORS, device) or None


def compute_direction(*arguments, **options) -> Direction:
    """The direction v in memory, (O, I) a layer; arguments as for `stream_direction`."""
    return dict(stream_direction(*arguments, **options))


def stream_direction(
    study: Study,
    model,
    modules: dict,
    factors: "Mapping[str, LayerFactors] | None",
    queries: str = "",
    report: Callable | None = None,
    differential: bool | None = None,
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """The direction v of a pair of query sets at a loaded checkpoint, layer by layer with its name: of as many layers
    together as their gradients fit in memory, which takes a pass over the queries for each part.

    Args:
        factors: its EK-FAC factors; None for the identity.
        queries: an extra pair of query sets; empty: the study's own.
        report: called as report(turn, turns) for each set of queries; gives what its queries are reported to.
        differential: toxic minus safe queries, or the toxic ones alone; None: as `direction.differential` says.
    """
    from ifguide.influence.direction import direction_by_layer, expert_means, query_gradient
    from ifguide.influence.parts import direction_bytes
    from ifguide.models.layers import device_of

    config = study.config.direction
    both = config.differential if differential is None else differential
    kinds = ("toxic", "safe") if both else ("toxic",)
    options: dict = {"tokens_per_batch": study.config.compute.tokens_per_batch, "processes": current()}
    options |= {"weighting": config.weighting, "objective": config.objective}
    encoded = {kind: encoded_queries(study, kind, queries) for kind in kinds}
    parts, means = divide_layers(study, model, modules, device_of(model), direction_bytes), expert_means(factors or {})
    for number, part in enumerate(parts):
        gradients = {}
        for turn, kind in enumerate(kinds):
            told = report and report(number * len(kinds) + turn, len(parts) * len(kinds))
            gradients[kind] = query_gradient(model, part, encoded[kind], report=told, **options)
        sides = gradients["toxic"], gradients.get("safe")
        yield from direction_by_layer(*sides, factors, config.damping, config.damping_unit, means)


def read_direction(study: Study, checkpoint: str, queries: str, modules: dict) -> Direction:
    """v of a pair of query sets, each layer's part where the layer computes."""
    from ifguide.models.layers import device_of

    tensors = artifacts.load_tensors(study.folder(Unit("direction")) / checkpoint / direction_file(queries))
    return {name: tensor.to(device_of(modules[name])) for name, tensor in tensors.items()}


def choose_way(study: Study, split, modules, direction, device):
    """How the settings and a sample of the corpus want the derivative taken; the same in every process."""
    from ifguide.influence.batches import make_batches
    from ifguide.influence.derivative import SAMPLE_TOKENS, Derivative, choose_derivative
    from ifguide.models.loading import has_fast_bfloat16

    def choose() -> dict:
        sequences = corpus_sequences(study, max_tokens=SAMPLE_TOKENS, seed=study.config.factors.seed)
        sample = [batch.to(device) for batch in make_batches(sequences, study.config.compute.tokens_per_batch)]
        setting, narrow = study.config.scores.derivative, has_fast_bfloat16(device)
        return asdict(choose_derivative(split, modules, direction, sample, setting=setting, narrow=narrow))

    return Derivative(**current().decide(choose))


def start_model(study: Study):
    """The model every training starts from, and its tokenizer."""
    from ifguide.models.loading import load_config, load_model, pick_device
    from ifguide.training.train import initialise_model

    config, tokenizer = study.config, study_tokenizer(study)
    source = study.resolve(config.model.source)
    device = pick_device(config.compute.device)
    if config.model.mode == "scratch":
        description = load_config(source, config.model.revision).to_dict()
        return initialise_model(description, description["vocab_size"], config.training.seed).to(device), tokenizer
    model = load_model(source, revision=config.model.revision, device=device)
    return model.requires_grad_(True), tokenizer


def cut_training_rows(study: Study, tokenizer, mask):
    """The corpus as training rows. A tokenizer's own beginning-of-text token goes before each document, but not in
    packed rows."""
    from ifguide.data.packing import BosRows, pack_rows

    corpus, layout, packing = study.corpus(), read_layout(study), study.config.training.packing
    bos = None if packing else layout["bos"]
    length = layout["max_length"] - (bos is not None)
    labels: dict = {"trained": corpus.trained, "ends": not corpus.is_chat}
    offsets, eos = np.asarray(corpus.offsets), None if corpus.is_joined else tokenizer.eos_token_id
    rows = pack_rows(corpus.token_ids, offsets, length, eos, mask, pack=packing, **labels)
    return rows if bos is None else BosRows(rows, bos)
