"""What can be known of a model before its weights are read: from its configuration, its shape without values, and two
of its layers with random ones."""

import contextlib
import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ifguide.errors import ConfigError, IFGuideError, InputError
from ifguide.storage import artifacts
from ifguide.storage.lock import read_record
from ifguide.study import on_demand
from ifguide.study.reading import Study

ENOUGH = 0.9
"""Share of the weights that has to be tracked for a study to see most of what training changes."""
_VERSION = 2
_TRIED_WEIGHTS = 300_000_000
"""Layers with more weights than this are not tried; their answer is None."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One table of `ifguide new`, `ifguide status` and the overview."""

    family: str
    """Transformers' name of the class."""
    parameters: int
    """All weights, tied ones counted once."""
    layers: tuple[tuple[int, int], ...]
    """(outputs, inputs) of each tracked layer, a bias counted as one more input."""
    tracked_share: float
    """Weights of the tracked layers to all but the embeddings'."""
    context: int
    """Tokens the model takes at once."""
    dtype: str
    """Of the stored weights, as the configuration says."""
    tied: bool
    """Input and output embeddings are one matrix."""
    forward_derivative: bool | None
    """Whether the exact derivative exists; None: it could not be tried."""
    packs: bool | None
    """Whether packed documents are kept apart; None: likewise."""

    def rows(self) -> list[tuple[str, str]]:
        """What and how much, for a table."""
        answers = {True: "yes", False: "no", None: "not known: its layers could not be tried"}
        derivative = {**answers, False: "no: scores by central differences, judged by halving the step"}
        packs = {**answers, False: "no: leave training.packing off"}
        too_little = "" if self.tracked_share >= ENOUGH else ": what the other weights learn is not seen"
        return [
            ("Model", f"{self.family}, {self.parameters:,} weights in {self.dtype}"),
            ("Tracked", f"{self.tracked_share:.1%} of the weights outside the embeddings{too_little}"),
            ("Context", f"{self.context:,} tokens"),
            ("Tied embeddings", answers[self.tied]),
            ("Forward derivative", derivative[self.forward_derivative]),
            ("Packing keeps documents apart", packs[self.packs]),
        ]


def known_facts(study: Study) -> ModelFacts | None:
    """What is on file of a study's model; of a recorded study, whose model is elsewhere, what it was recorded with."""
    recorded = read_record(study.root) and min(study.root.glob("model-facts/*.json"), default=None)
    stored = on_demand.read_result(recorded or _facts_path(study))
    return ModelFacts(**stored | {"layers": tuple(map(tuple, stored["layers"]))}) if stored else None


def find_facts(study: Study) -> ModelFacts:
    """What can be known of a study's model; what is not on file is found out and kept. Errors as `describe_model`, and
    a ConfigError: the study packs documents, which this model would read as one."""
    config, stored = study.config.model, known_facts(study)
    facts = stored or describe_model(study.resolve(config.source), config.revision, config.modules)
    if study.config.training.packing and facts.packs is False:
        reason = f"{facts.family} lets packed documents see each other"
        raise ConfigError(f"training.packing: {reason}; set training.packing=false, a row for each document")
    if stored is None:
        on_demand.keep_result(_facts_path(study), asdict(facts))
    return facts


def _facts_path(study: Study) -> Path:
    config = study.config.model
    source = Path(study.resolve(config.source)) / "config.json"
    digest = artifacts.hash_file(source) if source.is_file() else [config.source, config.revision]
    return on_demand.result_path(study, "model-facts", [_VERSION, digest, config.modules])


def describe_model(source: str, revision: str = "", modules: str = "") -> ModelFacts:
    """Look at the configuration of a model, a folder or hub id, in a second or two; `modules` is as `model.modules`. An
    InputError: there is none, or what Transformers makes from it is no causal language model; a ConfigError: none of
    its layers can be tracked, or one that it never calls would be."""
    import torch

    from ifguide.models.layers import count_weights, layer_shape
    from ifguide.models.loading import context_length, load_config, opening, tracked_modules

    config = load_config(source, revision)
    with opening("causal language model", source), torch.device("meta"):
        model = _make(config)
    tracked = tracked_modules(model, modules)
    embedding = [model.get_output_embeddings(), *(m for m in model.modules() if isinstance(m, torch.nn.Embedding))]
    embedded = {id(weights) for layer in embedding if layer is not None for weights in layer.parameters()}
    rest = sum(weights.numel() for weights in model.parameters() if id(weights) not in embedded)
    return ModelFacts(
        family=type(model).__name__,
        parameters=sum(weights.numel() for weights in model.parameters()),
        layers=tuple(map(layer_shape, tracked.values())),
        tracked_share=count_weights(tracked) / max(1, rest),
        context=context_length(config),
        dtype=str(getattr(config, "dtype", None) or "float32").removeprefix("torch."),
        tied=bool(config.get_text_config().tie_word_embeddings),
        **_try_layers(config, modules),
    )


def _try_layers(config, modules: str) -> dict[str, bool | None]:
    """What two of the layers do; None where they are too large, or no two can be taken out of the model."""
    import torch

    unknown: dict[str, bool | None] = {"forward_derivative": None, "packs": None}
    try:
        few = _first_layers(config)
        with torch.device("meta"):
            size = sum(weights.numel() for weights in _make(few).parameters())
        if size > _TRIED_WEIGHTS:
            return unknown
        model = _make(few).eval().requires_grad_(False)
        _check_order(model, config.name_or_path)
        _check_calls(model, modules)
        return {"forward_derivative": _has_forward_derivative(model, modules), "packs": _keeps_documents_apart(model)}
    except (ConfigError, InputError):
        raise
    except Exception:  # a model of another build is not described, and still runs
        return unknown


def _make(config):
    """A model of this shape; random weights, or none on the device `meta`."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)


def _first_layers(config):
    """The same configuration with two layers and few words."""
    few = copy.deepcopy(config)
    text = few.get_text_config()
    for name in ("layer_types", "mlp_layer_types"):
        if getattr(text, name, None):
            with contextlib.suppress(AttributeError):  # it follows from the number of layers
                setattr(text, name, getattr(text, name)[:2])
    text.num_hidden_layers, text.vocab_size = 2, 64
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, name, 0)
    return few


def _has_forward_derivative(model, modules: str) -> bool:
    import torch

    from ifguide.influence.batches import make_batches, query_sequences
    from ifguide.influence.line import own_loss_scores
    from ifguide.models.layers import layer_shape
    from ifguide.models.loading import tracked_modules

    tracked = tracked_modules(model, modules)
    direction = {name: torch.ones(layer_shape(module)) for name, module in tracked.items()}
    sequences = query_sequences([(np.arange(1, 6), np.ones(5, dtype=bool))])
    try:
        own_loss_scores(model, tracked, direction, next(iter(make_batches(sequences, 16))))
    except (IFGuideError, RuntimeError):
        return False
    return True


def _keeps_documents_apart(model) -> bool:
    """Whether the second of two documents in a row, told apart by their positions, is read as if it were alone."""
    import torch

    ids, positions = torch.arange(1, 9).unsqueeze(0), torch.arange(4).repeat(2).unsqueeze(0)
    with torch.no_grad():
        try:
            packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, 4:]
        except (TypeError, ValueError):  # it takes no positions
            return False
        alone = model(input_ids=ids[:, 4:], use_cache=False).logits
    return bool((packed - alone).abs().max() <= 1e-4 * alone.std())


def _check_order(model, source: str) -> None:
    """An InputError if what a model predicts before the last token depends on it."""
    import torch

    ids = torch.arange(1, 9).repeat(2, 1)
    ids[1, -1] = 9
    with torch.no_grad():
        one, other = model(input_ids=ids, use_cache=False).logits[:, :-1]
    if (one - other).abs().max() > 1e-4 * one.std():
        kind = type(model).__name__
        raise InputError(f"{source!r} is no causal language model ({kind} reads both ways); name one such as a GPT")


def _check_calls(model, modules: str) -> None:
    """A ConfigError if a tracked layer is never called: its weight is used in another way, which nothing here sees."""
    import torch

    from ifguide.models.layers import Part
    from ifguide.models.loading import tracked_modules

    tracked = {name: m for name, m in tracked_modules(model, modules).items() if not isinstance(m, Part)}
    called: set[str] = set()
    hooks = [m.register_forward_hook(lambda *args, name=name: called.add(name)) for name, m in tracked.items()]
    with torch.no_grad():
        model(input_ids=torch.arange(1, 9).unsqueeze(0), use_cache=False)
    for hook in hooks:
        hook.remove()
    if len(called) < len(tracked):
        kinds = {ending: name in called for name in tracked for ending in [name.rpartition(".")[2]]}
        unseen, seen = (", ".join(k for k, v in kinds.items() if v is one) for one in (False, True))
        remedy = f"leave them out with model.modules='({seen.replace(', ', '|')})$'"
        raise ConfigError(f"{type(model).__name__} uses weights of {unseen} without calling the layer; {remedy}")
