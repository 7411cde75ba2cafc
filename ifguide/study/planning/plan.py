"""How long each stage will take on this machine, and how much memory and disk: from some seconds of the study's own
model on the beginning of its own corpus.

A rate is measured where work grows with tokens, completions or layers, by calling what the stages call; the rest is
counted from the layers' shapes. What is measured holds for the machine as it is: beside other work it is slower.
"""

import dataclasses
import functools
import itertools
import json
import math
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ifguide.config.attributions import KINDS, computed_kinds, needs_direction
from ifguide.data.packing import pack_rows
from ifguide.errors import ConfigError
from ifguide.runtime.allocator import keep_freed_memory, return_freed_memory
from ifguide.storage.durations import format_seconds
from ifguide.storage.peak_memory import free_memory, read_peak, reset_peak
from ifguide.study import on_demand
from ifguide.study.freshness import settings_of
from ifguide.study.lineage import STAGES
from ifguide.study.planning.model_facts import find_facts
from ifguide.study.planning.sizing import sample_inputs, smaller_batch
from ifguide.study.reading import Study

FOLDER = "plans"
EFFORT = 5e10
"""Products of a weight and a token that one measurement takes, so that it takes a second or two of any model."""
NARROW_KERNELS = 800_000_000
"""Bytes that a processor's bfloat16 kernels, one for each shape of a batch, leave with a run once it has trained."""
RESERVE = 0.9
"""Share of the free memory that a stage may take."""
MEMORY = {"host": "memory", "device": "GPU memory"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Need:
    """What one stage takes."""

    seconds: float
    host: int = 0
    """Bytes of memory at the peak."""
    device: int = 0
    """Bytes of the GPU's, likewise."""
    disk: int = 0
    """Bytes that it leaves."""


def known_plan(study: Study) -> dict | None:
    """The plan on file for the settings as they are; None: there is none."""
    return on_demand.read_result(_plan_path(study))


def _plan_path(study: Study) -> Path:
    settings = {str(unit): settings_of(study, unit) for stage in STAGES for unit in study.units(stage)}
    return on_demand.result_path(study, FOLDER, [2, settings, dataclasses.asdict(study.config.compute)])


def make_plan(study: Study) -> dict:
    """Measure, and keep the plan with the study: {"stages": {stage: the fields of `Need`}, "free": bytes of `host`,
    `device` and `disk`, "problems": [text, ...], "remedies": {setting: value}, "partitions": parts that the layers are
    fitted in}."""
    measured = Measured(study)
    needs, partitions = measured.needs(), measured.partitions
    free = free_memory(study.root)
    problems, remedies = find_problems(study, needs, free)
    if partitions > 1 and not study.config.factors.partitions:
        remedies["factors.partitions"] = partitions
    stages = {stage: dataclasses.asdict(need) for stage, need in needs.items()}
    found = {"stages": stages, "free": free, "problems": problems, "remedies": remedies, "partitions": partitions}
    return on_demand.keep_result(_plan_path(study), found)


def find_problems(study: Study, needs: dict[str, Need], free: dict[str, int]) -> tuple[list[str], dict]:
    """What does not fit, in words, and settings that make it fit."""
    config, problems = study.config, []
    remedies: dict[str, int | str] = {}
    small = {"model": 1, "suppress": 1, "evaluate": 16}
    for (stage, need), (place, what) in itertools.product(needs.items(), MEMORY.items()):
        wanted = getattr(need, place)
        if wanted <= RESERVE * free.get(place, wanted / RESERVE):
            continue
        problems.append(f"{stage} needs {size(wanted)} of {what}; {size(free[place])} are free")
        smaller = smaller_batch(config, stage, small.get(stage, 512))
        remedies |= smaller
        if stage == "factors" and 0 < (parts := config.factors.partitions) < len(find_facts(study).layers):
            remedies["factors.partitions"] = 2 * parts
        elif stage == "factors" and not smaller:
            remedies["model.modules"] = "mlp"
        if stage in ("model", "suppress") and not smaller:
            if not config.training.gradient_checkpointing:
                remedies["training.gradient_checkpointing"] = True
            elif config.model.mode == "finetune":
                remedies["training.adapter"] = "lora"
    total = sum(need.disk for need in needs.values())
    if total > free.get("disk", total):
        problems.append(f"the study needs {size(total)} on the disk; {size(free['disk'])} are free")
    return problems, remedies


def check_fit(study: Study, stages: Iterable[str]) -> None:
    """Refuse stages that cannot fit on this machine as it is now: counted from the model's shape, with nothing
    measured, is what each needs at the very least. A ConfigError names the settings that would make them fit."""
    from ifguide.influence.parts import direction_bytes, fit_bytes
    from ifguide.models.loading import pick_device

    config, facts = study.config, find_facts(study)
    weights = 4 * facts.parameters
    least = {"evaluate": weights}
    if needs_direction(config.scores) and not config.compute.device_map:
        needed = {"factors": fit_bytes, "direction": direction_bytes}
        alone = {stage: max(need({"": shape}, {"": ""}) for shape in facts.layers) for stage, need in needed.items()}
        least |= {stage: weights + one for stage, one in alone.items()}  # the largest layer in a part of its own
    if not config.training.adapter:
        least |= {"suppress": 4 * weights} | ({} if config.model.mode == "asis" else {"model": 4 * weights})
    place = "device" if pick_device(config.compute.device).type == "cuda" else "host"
    needs = {stage: Need(seconds=0.0, **{place: least[stage]}) for stage in stages if stage in least}
    problems, remedies = find_problems(study, needs, free_memory(study.root))
    if problems:
        settings = ", ".join(f"{key} = {json.dumps(value)}" for key, value in remedies.items())
        remedy = f"set {settings} in study.toml, use" if settings else "use"
        raise ConfigError(f"{'; '.join(problems)}; {remedy} a larger machine, or run it with --no-fit-check")


def size(n_bytes: float) -> str:
    """Bytes in words: `512 MB`, `3.4 GB`."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def plan_rows(found: dict) -> list[tuple[str, ...]]:
    """A plan as a table: of each stage the time, memory, GPU memory and disk; then all together, and what is free."""
    places, stages = ("host", "device", "disk"), found["stages"]
    rows = [
        (stage, format_seconds(need["seconds"]), *(size(need[place]) if need[place] else "" for place in places))
        for stage, need in stages.items()
    ]
    most = [size(found["free"][place]) if place in found["free"] else "" for place in places]
    seconds = sum(need["seconds"] for need in stages.values())
    return [*rows, ("in all", format_seconds(seconds), "", "", ""), ("free", "", *most)]


class Measured:
    """One study's model on this machine: rates, and what its stages come to."""

    def __init__(self, study: Study):
        from ifguide.data.packing import chunk_documents
        from ifguide.influence.batches import CorpusSequences, make_batches
        from ifguide.models.loading import tracked_modules
        from ifguide.study.stages.checkpoints import start_model

        keep_freed_memory()  # as a run does
        self.study, self.config, self.facts = study, study.config, find_facts(study)
        self.sample = sample = sample_inputs(study)
        self.n_tokens = round(sample.n_documents * np.diff(sample.offsets).mean())
        self.scale = sample.n_documents / (len(sample.offsets) - 1)
        """Documents of the corpus for one of the sample."""
        self.model, self.tokenizer = start_model(study)
        self.model.eval().requires_grad_(False)
        self.modules, self.device = tracked_modules(self.model, self.config.model.modules), self.model.device
        chunks = chunk_documents(sample.offsets, study.max_length())
        self.tokens = max(128, int(EFFORT // self.facts.parameters))
        few = 1 + int(np.searchsorted(np.cumsum(chunks[:, 2] - chunks[:, 1]), self.tokens))
        sequences = CorpusSequences(sample.token_ids, sample.offsets, chunks[:few])
        self.make_batches = functools.partial(make_batches, sequences)
        self.batches, self.fuller = self.batches_of(self.config.compute.tokens_per_batch)
        self.measured = sum(batch.n_tokens for batch in self.batches)
        self.weights, self.matrices = 4 * self.facts.parameters, 4 * sum(map(math.prod, self.facts.layers))
        """Bytes in float32 of the model's weights, and of a matrix the shape of each tracked layer."""
        self.least = read_peak().get("host", 0)
        """Bytes of a process that has loaded what every stage loads."""
        self.partitions = 1
        """Parts that the layers are fitted in."""
        self.peaks: Counter[str] = Counter()
        """Bytes at the most, on the host and the device, since the last `need`."""

    def batches_of(self, tokens: int) -> tuple[list, float]:
        """What is measured, in batches of this many tokens; and the tokens of a full one for one of the largest."""
        found = [batch.to(self.device) for batch in self.make_batches(tokens)]
        return found, max(1.0, min(tokens, self.n_tokens) / max(batch.input_ids.numel() for batch in found))

    def time(self, work: Callable[[], object], fuller: float = 1.0, fixed: int = 0) -> float:
        """Seconds that a piece of work takes; `peaks` grows to the memory that it would take with `fuller` times the
        tokens at once, but for `fixed` bytes that it holds for any number. What is quick is done again, for the first
        time is slower."""
        return_freed_memory()
        reset_peak()
        before = Counter(read_peak())
        seconds = math.inf
        for _ in range(2):
            started = time.monotonic()
            work()
            if self.device.type == "cuda":
                sys.modules["torch"].cuda.synchronize(self.device)
            seconds = min(seconds, time.monotonic() - started)
            if seconds > 1:
                break
        for place, peak in read_peak().items():
            grown = max(0, peak - before[place] - fixed)
            self.peaks[place] = max(self.peaks[place], peak + round((fuller - 1) * grown))
        return seconds

    def need(self, seconds: float, disk: int = 0, more: int = 0) -> Need:
        """A stage with the memory of what was timed for it, and `more` bytes where the model is."""
        peaks, self.peaks = self.peaks, Counter()
        peaks["device" if self.device.type == "cuda" else "host"] += more
        return Need(seconds=seconds, disk=disk, host=peaks["host"], device=peaks["device"])

    def needs(self) -> dict[str, Need]:
        """What each stage takes, in the order they run; training is measured last, for it changes the model."""
        config, sample, units = self.config, self.sample, {stage: len(self.study.units(stage)) for stage in STAGES}
        kinds, n = computed_kinds(config.scores), len(self.checkpoints())
        reading = sample.seconds * self.scale
        found = {"corpus": Need(seconds=1 + reading, disk=16 * self.n_tokens), "queries": Need(seconds=0.1)}
        if needs_direction(config.scores):
            found["factors"], found["direction"] = self.factors(n), self.direction(n)
        found["scores"] = self.scores(n, kinds)
        found["index"] = Need(seconds=0.1 + 1e-6 * len(kinds) * self.n_tokens, disk=24 * len(kinds) * self.n_tokens)
        found["selection"] = Need(seconds=0.2 * units["selection"])
        found["documents"] = Need(seconds=0.5 + 1e-4 * sample.n_documents)
        found["evaluate"] = self.evaluation(units["evaluate"])
        once = self.training()
        models = units["suppress"]
        found["suppress"] = dataclasses.replace(once, seconds=models * once.seconds, disk=models * self.weights)
        taken = config.model.mode == "asis"
        found["model"] = Need(seconds=0.1) if taken else dataclasses.replace(once, disk=self.weights * (1 + n))
        needs = {stage: found[stage] for stage in STAGES if stage in found}
        narrow = self.device.type == "cpu" and config.training.dtype == "bfloat16"
        for stage, need in needs.items():
            kept = NARROW_KERNELS if narrow and stage not in ("corpus", "queries") else 0
            needs[stage] = dataclasses.replace(need, host=(need.host or self.least) + kept)
        return needs

    def rows(self) -> tuple[Sequence, int]:
        """The sample's training rows, and how many the whole corpus has."""
        sample, training = self.sample, self.config.training
        length, end = self.study.max_length(), self.tokenizer.eos_token_id
        rows = pack_rows(sample.token_ids, sample.offsets, length, end, None, pack=training.packing)
        return rows, max(1, round(len(rows) * self.scale))

    def checkpoints(self) -> tuple:
        """Names or steps of what is scored."""
        from ifguide.training.train import choose_checkpoint_steps

        training = self.config.training
        if self.config.model.mode == "asis":
            return self.config.model.checkpoints or ("given",)
        steps = choose_checkpoint_steps(self.rows()[1], training)
        return (*steps, "last") if training.include_last_checkpoint or not steps else steps

    def factors(self, n: int) -> Need:
        """Two passes over some tokens, and an eigenbasis for each side of a layer, at n checkpoints."""
        import torch

        from ifguide.influence.ekfac import KEPT_BYTES, Fit, accumulation_dtype, eigenvectors, factor_shapes
        from ifguide.influence.parts import fit_bytes, shapes_of
        from ifguide.models.layers import layer_shape
        from ifguide.runtime.distributed import ALONE
        from ifguide.study.stages.checkpoints import divide_layers, factor_products, fit_batch

        config = self.config.factors
        if config.strategy == "identity":
            return Need(seconds=0.1)
        narrow = factor_products(self.study, self.device)
        products = getattr(torch, narrow) if narrow else None
        batches, fuller = self.batches_of(fit_batch(self.modules, self.config.compute.tokens_per_batch))
        fit = Fit(self.model, self.modules, lambda: batches, config.labels, 0, products, None, 0, ALONE, 0)
        parts = divide_layers(self.study, self.model, self.modules, self.device, fit_bytes, config.partitions)
        self.partitions = len(parts)
        largest = max(parts, key=lambda part: fit_bytes(shapes_of(part), fit.shared))
        found: deque = deque(maxlen=1)  # what is timed twice is held once
        matrices = fit_bytes(shapes_of(largest), fit.shared)

        def first_pass() -> None:
            fit.kept.clear()
            fit.room = KEPT_BYTES
            found.append(fit.covariances(largest))

        seconds = self.time(first_pass, fuller, matrices)
        inputs, outputs = found.pop()  # other square matrices take as long
        seconds += self.time(lambda: fit.eigenvalues(largest, inputs, outputs), fuller, matrices)
        sides = Counter(outputs for outputs, _ in self.facts.layers)
        sides.update(layer_shape(self.modules[first])[1] for first in {*fit.shared.values()})
        eigen = 0.0
        for side, times in sides.items():
            mixed = torch.rand(1, side, side, device=self.device)
            eigen += times * self.time(functools.partial(eigenvectors, mixed @ mixed.mT, [""]))
        tokens = min(config.max_tokens or self.n_tokens, self.n_tokens)
        fields = (shape for fields in factor_shapes(self.modules, config.rank).values() for shape in fields.values())
        width = accumulation_dtype(self.model).itemsize if config.dtype == "float32" else 2
        share, held = tokens / self.measured, KEPT_BYTES - fit.room
        kept = min(KEPT_BYTES, int(share * held)) - held  # of all tokens, beyond those measured
        disk = n * width * sum(map(math.prod, fields))
        return self.need(n * (len(parts) * seconds * share + eigen), disk, max(0, kept))

    def direction(self, n: int) -> Need:
        """The queries' gradients at n checkpoints; the products with the factors take little beside them."""
        from ifguide.influence.direction import query_gradient
        from ifguide.influence.parts import direction_bytes, shapes_of
        from ifguide.study.stages.checkpoints import divide_layers

        parts = divide_layers(self.study, self.model, self.modules, self.device, direction_bytes)
        each = {name: name for name in self.modules}
        largest = max(parts, key=lambda part: direction_bytes(shapes_of(part), each))
        lengths, tokens = [len(ids) for ids, _ in self.sample.queries], self.config.compute.tokens_per_batch
        few = 1 + int(np.searchsorted(np.cumsum(lengths), self.tokens))
        some = self.sample.queries[:few]
        held = 4 * sum(math.prod(shape) for shape in shapes_of(largest).values())  # while it was measured
        fuller = max(1.0, min(tokens, sum(lengths)) / min(tokens, few * max(lengths[:few])))
        work = functools.partial(query_gradient, self.model, largest, some, tokens_per_batch=tokens)
        seconds = self.time(work, fuller, held) * len(parts) * sum(lengths) / sum(lengths[:few])
        more = direction_bytes(shapes_of(largest), each) - held
        return self.need(n * (seconds + 0.2), n * self.matrices, more)

    def scores(self, n: int, kinds: tuple[str, ...]) -> Need:
        """A pass or several for each kind and each pair of query sets, at n checkpoints."""
        import torch

        from ifguide.influence.attribution import position_scores
        from ifguide.influence.derivative import RELATIVE_STEPS, SAMPLE_TOKENS, Derivative
        from ifguide.influence.losses import SplitModel
        from ifguide.influence.probe import hidden_states
        from ifguide.models.loading import attention

        sets, seconds = len(self.study.query_sets()), 0.0
        shapes = zip(self.modules, self.facts.layers, strict=True)
        along = {name: torch.ones(shape, device=self.device) for name, shape in shapes}
        split = SplitModel(self.model)

        def by_token(score: Callable) -> float:
            return self.time(lambda: [score(batch) for batch in self.batches], self.fuller) / self.measured

        if "own_loss" in kinds:
            central = by_token(Derivative("central", epsilon=1e-6).scorer(split, self.modules, along))
            exact = 0.0
            if self.facts.forward_derivative:
                with attention(self.model, "eager"):
                    exact = by_token(Derivative("jvp").scorer(split, self.modules, along))
            tried = min(SAMPLE_TOKENS, self.n_tokens) * (exact + central * (len(RELATIVE_STEPS) + 1))
            passes = exact if self.config.scores.derivative == "jvp" else central
            seconds += sets * (tried + self.n_tokens * passes)
        if "position" in kinds:
            seconds += self.n_tokens * by_token(lambda b: position_scores(split, self.modules, [along] * sets, b))
        if "probe" in kinds:
            read = self.n_tokens + sets * sum(len(ids) for ids, _ in self.sample.queries)
            seconds += read * by_token(lambda batch: hidden_states(self.model, batch))
        stored = [kind for kind in kinds if not KINDS[kind].parts]
        return self.need(n * seconds, 4 * self.n_tokens * (n * len(stored) + len(kinds)), self.matrices * sets)

    def evaluation(self, models: int) -> Need:
        """Completions, their rating and held-out text, for each model."""
        from ifguide.data.prompts import read_heldout
        from ifguide.evaluation.fluency import heldout_losses
        from ifguide.evaluation.generation import generate_completions
        from ifguide.study.stages.evaluating import load_study_scorer

        config = self.study.resolved("evaluate")
        prompts = self.sample.prompts
        count = len(prompts) * config.n_samples
        together = min(config.batch_size, count, max(16, self.tokens // 8))
        few = prompts[: math.ceil(together / config.n_samples)]
        made = len(few) * config.n_samples

        def generate(steps: int) -> Callable:
            short = dataclasses.replace(config, max_new_tokens=steps)
            return lambda: written.append(generate_completions(self.model, self.tokenizer, few, short))

        written: list = []
        fuller = min(config.batch_size, count) / made
        short, longer = self.time(generate(2), fuller), self.time(generate(6), fuller)
        by_step = max(0.0, longer - short) / 4
        seconds = count / made * (short + by_step * (config.max_new_tokens - 2))
        scorer = load_study_scorer(self.study, config.scorer)
        seconds += count / made * self.time(lambda: scorer.score([one.completion for one in written[-1]]))
        texts = read_heldout(config.heldout, config) if config.heldout else []
        if texts:
            read = self.time(lambda: heldout_losses(self.model, self.tokenizer, texts[:16]))
            seconds += len(texts) / len(texts[:16]) * read
        return self.need(models * (seconds + 0.3), models * 200 * count)

    def training(self) -> Need:
        """One training, from a few steps of it."""
        from ifguide.training.train import count_steps, train_model

        config, (rows, total), made = self.config.training, self.rows(), []
        once = count_steps(total, dataclasses.replace(config, max_steps=0, epochs=1.0))
        passes = count_steps(total, config) / once
        for number in (2, 6):  # the first steps are slower
            few = dataclasses.replace(config, max_steps=number, checkpoint_steps=(), save_steps=0)
            with tempfile.TemporaryDirectory() as folder:
                reset_peak()
                made.append(train_model(self.model, None, rows, few, None, Path(folder)))
        self.peaks |= Counter(read_peak())
        by_token = (made[1].seconds - made[0].seconds) / max(1, made[1].tokens_seen - made[0].tokens_seen)
        return self.need(made[0].seconds + passes * self.n_tokens * by_token)
