"""The state of a killed training run: weights, optimiser, schedule and random numbers, in safetensors and JSON.

A run that goes on from it takes the same steps as an undisturbed one; on a CPU with as many processes, bit for bit.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import Tensor

from ifguide.errors import StaleError
from ifguide.runtime.distributed import current
from ifguide.storage import artifacts

STATE = "state"
"""Folder of the state inside the folder of a training run."""
_TRAINER = "trainer_state.json"  # Transformers' own name, which its Trainer reads


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """A state that was saved whole."""

    folder: Path
    step: int
    """Optimiser steps taken."""
    tokens_seen: int
    """Predicted tokens trained on."""
    random: dict[str, Tensor]
    """Random generators of this process after that step."""
    random_of_pass: dict[str, Tensor]
    """The same at the beginning of the pass that the next step belongs to; they draw its order of rows."""

    @property
    def weights(self) -> Path:
        """The weights of all processes."""
        return self.folder / "model.safetensors"

    def restore_schedule(self, scheduler, *, by_name: bool) -> dict:
        """Put the schedule back where it was, and return the optimiser's state, with `by_name` under the names of the
        parameters, as FSDP keeps it. A StaleError: the state is of the other kind, or of an earlier version."""
        described = artifacts.read_json(self.folder / "optimiser.json")
        moments: dict[int | str, dict] = {}
        if described.get("by_name") is not by_name:
            saved = "without FSDP" if by_name else "under FSDP"
            raise StaleError(
                f"the state of a killed training in {self.folder} was saved {saved}, or by an earlier version; start it"
                " as before, or remove that folder to train from the start"
            )
        tensors = artifacts.load_tensors(self.folder / "optimiser.safetensors")
        for key, value in (tensors | described.get("numbers", {})).items():
            number, *outer, name = key.split("|")
            place = moments.setdefault(number if by_name else int(number), {})
            for level in outer:
                place = place.setdefault(level, {})
            place[name] = value
        scheduler.load_state_dict({**scheduler.state_dict(), **described["schedule"]})
        return {"state": moments, "param_groups": described["groups"]}


def read_random() -> dict[str, Tensor]:
    """The state of torch's random generators on the processor and on this process's GPU."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random(states: dict[str, Tensor]) -> None:
    """Put torch's random generators back."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def save_state(trainer, folder: Path, tokens_seen: int, random_of_pass: dict[str, Tensor]) -> None:
    """Write the state of a `PenalisedTrainer` between two steps; it replaces the one before when it is whole. Every
    process calls this. `tokens_seen` and `random_of_pass` as in `TrainingState`."""
    partial, place, processes = folder / f"{STATE}.partial", folder / STATE, current()
    if processes.is_main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    processes.wait()
    randoms = {f"now|{name}": state for name, state in read_random().items()}
    randoms |= {f"pass|{name}": state for name, state in random_of_pass.items()}
    artifacts.save_tensors(randoms, partial / f"random-{processes.rank}.safetensors")
    weights, moments = trainer.gather_weights(), trainer.gather_moments()
    processes.wait()
    if not processes.is_main:
        return
    if weights is None:
        save_model(trainer.model, str(partial / "model.safetensors"))
    else:
        artifacts.save_tensors(weights, partial / "model.safetensors")
    values = _flatten(moments["state"])
    tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    shared = {key: value.clone() for key, value in tensors.items() if "|qmap" in key}  # bitsandbytes' tables, in all
    artifacts.save_tensors(tensors | shared, partial / "optimiser.safetensors")
    schedule = {key: v for key, v in trainer.lr_scheduler.state_dict().items() if isinstance(v, int | float | list)}
    schedule.pop("lr_lambdas", None)
    described = {"by_name": weights is not None, "groups": moments["param_groups"], "schedule": schedule}
    described["numbers"] = {key: value for key, value in values.items() if key not in tensors}
    (partial / "optimiser.json").write_text(json.dumps(described), encoding="utf-8")
    trainer.state.save_to_json(str(partial / _TRAINER))
    counts = {"step": trainer.state.global_step, "tokens_seen": tokens_seen, "processes": processes.world_size}
    (partial / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
    for path in partial.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    old = folder / f"{STATE}.old"
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)  # a kill between these two lines leaves the old one, which `read_state` finds
    partial.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _flatten(tree: dict, above: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries, with the keys on the way to each joined by |."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flatten(value, f"{above}{key}|") if isinstance(value, dict) else {f"{above}{key}": value}
    return leaves


def read_state(folder: Path) -> TrainingState | None:
    """What a killed run left in its folder, or None, in every process; those beyond its number share random numbers.

    Raises:
        StaleError: what is there cannot be read.
    """
    place, old = folder / STATE, folder / f"{STATE}.old"
    if not current().decide(lambda: place.exists() or (old.exists() and bool(old.rename(place)))):
        return None
    try:
        counts = artifacts.read_json(place / "counts.json")
        number = current().rank % counts.pop("processes")
        randoms = artifacts.load_tensors(place / f"random-{number}.safetensors")
    except (StaleError, OSError, ValueError, KeyError) as error:
        message = f"the state of a killed training in {place} is damaged ({error}); remove that folder"
        raise StaleError(message) from error
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "pass": {}}
    for key, state in randoms.items():
        when, device = key.split("|")
        parts[when][device] = state
    return TrainingState(folder=place, random=parts["now"], random_of_pass=parts["pass"], **counts)
