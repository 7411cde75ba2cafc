"""What a stage takes on this machine, from some seconds of the study's own model on the beginning of its own corpus.

A rate is measured where work grows with tokens, completions or layers, by calling what the stages call; the rest is
counted from the layers' shapes. What is measured holds for the machine as it is: beside other work it is slower.
"""

import dataclasses
import functools
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ifguide.data.packing import pack_rows
from ifguide.runtime.allocator import keep_freed_memory, return_freed_memory
from ifguide.storage.peak_memory import read_peak, reset_peak
from ifguide.study.planning.model_facts import find_facts
from ifguide.study.planning.sizing import sample_inputs
from ifguide.study.reading import Study

EFFORT = 1e10
"""Products of a weight and a token that one measurement takes, so that it takes a second or less of any model."""


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


class Measured:
    """One study's model on this machine: what the stages' needs are measured with."""

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
        self.tokens = max(64, int(EFFORT // self.facts.parameters))
        few = chunks[usual(chunks[:, 2] - chunks[:, 1], self.tokens)]
        sequences = CorpusSequences(sample.token_ids, sample.offsets, few)
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
        batches = [batch.to(self.device) for batch in self.make_batches(tokens)]
        return batches, max(1.0, min(tokens, self.n_tokens) / max(batch.input_ids.numel() for batch in batches))

    def time(self, work: Callable[[], object], fuller: float = 1.0, fixed: int = 0) -> float:
        """Seconds that a piece of work takes; `peaks` grows to the memory that it would take with `fuller` times the
        tokens at once, but for `fixed` bytes that it holds for any number. What is quick is done again, for the first
        time is slower."""
        return_freed_memory()
        reset_peak()
        before, seconds = Counter(read_peak()), math.inf
        for _ in range(2):
            started = time.monotonic()
            work()
            if self.device.type == "cuda":
                sys.modules["torch"].cuda.synchronize(self.device)
            seconds = min(seconds, time.monotonic() - started)
            if seconds > 0.5:
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

    def rows(self) -> tuple[Sequence, int]:
        """The sample's training rows, and how many the whole corpus has."""
        sample, training = self.sample, self.config.training
        length, end = self.study.max_length(), self.tokenizer.eos_token_id
        rows = pack_rows(sample.token_ids, sample.offsets, length, end, None, pack=training.packing)
        return rows, max(1, round(len(rows) * self.scale))

    def count(self, stage: str) -> int:
        """How many artefacts a full run of a stage makes."""
        return len(self.study.units(stage))

    @functools.cached_property
    def checkpoints(self) -> tuple:
        """Names or steps of what is scored."""
        from ifguide.training.train import choose_checkpoint_steps

        training = self.config.training
        if self.config.model.mode == "asis":
            return self.config.model.checkpoints or ("given",)
        steps = choose_checkpoint_steps(self.rows()[1], training)
        return (*steps, "last") if training.include_last_checkpoint or not steps else steps

    @functools.cached_property
    def training(self) -> Need:
        """One training, from a step with the longest rows, which takes the most memory, and others with rows of mean
        length. They change the model, so it is asked for last."""
        from ifguide.training.train import count_steps

        config, (rows, total) = self.config.training, self.rows()
        lengths = np.array([np.count_nonzero(row.document_index >= 0) for row in rows])
        order, size = np.argsort(lengths), min(config.batch_size, len(rows))
        middle = max(size, int(np.searchsorted(lengths[order], lengths.mean())))
        longest, others = ([rows[n] for n in some] for some in (order[-size:], order[middle - size : middle]))
        reset_peak()
        first, each = self._train(longest, 1), self._train(others, 1)
        self.peaks |= Counter(read_peak())
        if each < 1:  # starting and ending count, too
            each = max(0.0, self._train(others, 6) - each) / 5
        moments = 0 if config.adapter else self.weights // 2 if config.optimizer == "adamw-8bit" else 2 * self.weights
        seconds = first + each * count_steps(total, config) * config.gradient_accumulation
        return self.need(seconds, more=moments)  # they come with the first step, after what takes the most

    def _train(self, rows: list, steps: int) -> float:
        """Seconds of some steps with all these rows in each."""
        from ifguide.training.train import train_model

        once: dict = {"batch_size": len(rows), "gradient_accumulation": 1, "checkpoint_steps": (), "save_steps": 0}
        few = dataclasses.replace(self.config.training, max_steps=steps, **once)
        with tempfile.TemporaryDirectory() as folder:
            return train_model(self.model, None, rows, few, None, Path(folder)).seconds


def usual(lengths: np.ndarray, tokens: int) -> np.ndarray:
    """Numbers of the sequences around the one that the middle token is in, by length, of about this many tokens: as
    alike as those of a batch, so that little of them is padding."""
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    first = int(np.searchsorted(ends, (ends[-1] - tokens) / 2))
    return order[first : 1 + int(np.searchsorted(ends, ends[first] + tokens - lengths[order[first]]))]
