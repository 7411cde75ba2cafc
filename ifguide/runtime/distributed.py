"""Several processes in one run: how they share the work and wait for each other.

`torchrun -m ifguide run NAME` and `accelerate launch -m ifguide run NAME` start the same program several times. The
main process (rank 0) decides what to build, holds the study's lock and writes; all compute a share and sum the results.
Over `torch.distributed`: gloo between processors and for decisions, NCCL between GPUs; tensors and JSON, never pickles.

A process that fails writes the reason to the shared store and ends; the others raise it instead of waiting for ever.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from ifguide.errors import IFGuideError, InputError, ProcessError, describe_error

if TYPE_CHECKING:
    import torch

LONGEST_WAIT = timedelta(days=30)
"""One process may train or evaluate for days while the others wait."""
UPDATE_SECONDS = 0.25
"""Shortest time between two exchanges of counts."""
_FAILURE = "failure"
_ADDRESS = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")


class Processes:
    """The processes of this run, seen from one of them. Without arguments: this process alone.

    Every process must call the collective methods (`decide` to `count`) in the same order. `is_main` is true in the one
    that decides and writes.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, store=None, control=None):
        self.rank, self.world_size = rank, world_size
        self.is_main, self.alone = rank == 0, world_size == 1
        self._store, self._control = store, control
        self._n_counts = 0

    @property
    def local_rank(self) -> int:
        """Number of this process on its machine, and of its GPU."""
        return 0 if self.alone else int(os.environ.get("LOCAL_RANK", self.rank))

    @property
    def _dist(self):
        import torch.distributed

        return torch.distributed

    def owns(self, number: int) -> bool:
        """Whether piece `number` of some work belongs to this process."""
        return number % self.world_size == self.rank

    def decide(self, function: Callable[[], object] | None):
        """The value, which JSON can hold, of a function that only the main process calls; others may give None.

        An IFGuideError of the function is raised there, and as a ProcessError in the other processes.
        """
        if self.alone:
            assert function is not None
            return function()
        answer = {}
        if self.is_main:
            assert function is not None
            try:
                answer = {"value": function()}
            except IFGuideError as error:
                self._tell({"error": str(error)})
                raise
        answer = self._tell(answer)
        if "error" in answer:
            raise ProcessError(answer["error"])
        return answer["value"]

    def sum(self, tensors: Iterable["torch.Tensor"]) -> None:
        """Replace each tensor, in place and in its dtype, by its sum over all processes: the same bytes in each."""
        if not self.alone:
            with self._explained():
                for tensor in tensors:
                    self._dist.all_reduce(tensor)

    def sum_counts(self, *counts: int) -> list[int]:
        """Integers summed over all processes."""
        import torch

        total = torch.tensor(counts, dtype=torch.int64)
        self.sum([total])
        return total.tolist()

    def spread(self, tensor: "torch.Tensor", source: int) -> None:
        """Fill a tensor, in place, with the values of process `source`."""
        if not self.alone:
            with self._explained():
                self._dist.broadcast(tensor, src=source)

    def wait(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Wait until all processes have called this, and call `meanwhile` a few times a second."""
        if self.alone:
            return
        with self._explained():
            arrival = self._dist.barrier(group=self._control, async_op=True)
            while not arrival.is_completed():
                time.sleep(UPDATE_SECONDS / 5)
                if meanwhile:
                    meanwhile()
            arrival.wait()

    def count(self, report: Callable[[int, int], None] | None, total: int) -> "SharedCount":
        """A counter that all processes add to; the main one reports the sum."""
        self._n_counts += 1
        return SharedCount(self, f"count {self._n_counts}", report, total)

    def _tell(self, answer: dict) -> dict:
        """The main process's value, in every process."""
        import torch

        content = torch.tensor(list(json.dumps(answer).encode()), dtype=torch.uint8)
        length = torch.tensor([len(content)])
        self.spread(length, source=0)
        if not self.is_main:
            content = torch.zeros(int(length), dtype=torch.uint8)
        self.spread(content, source=0)
        return json.loads(bytes(content.tolist()))

    def tell_failure(self, error: BaseException) -> None:
        """Tell the others why this process ends. The first reason counts."""
        if self.alone or isinstance(error, ProcessError | SystemExit | KeyboardInterrupt):
            return
        with contextlib.suppress(RuntimeError):  # the store ends with the process that holds it
            if not self._store.check([_FAILURE]):
                self._store.set(_FAILURE, json.dumps([self.rank, describe_error(error)]))

    def failure(self) -> str:
        """Why another process failed; empty when none has."""
        if self.alone:
            return ""
        with contextlib.suppress(RuntimeError):
            if self._store.check([_FAILURE]):
                rank, text = json.loads(self._store.get(_FAILURE))
                return f"process {rank} of {self.world_size} failed: {text}"
        return ""

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn a broken connection into an error with its reason."""
        try:
            yield
        except RuntimeError as error:
            raise self.lost() from error

    def lost(self) -> ProcessError:
        """The error for a broken connection: another process has ended, whether or not it said why."""
        ended = f"another of the {self.world_size} processes was killed, or ended without a word"
        return ProcessError(self.failure() or f"{ended}; give the same command again, and the run goes on")


class SharedCount:
    """Units done by all processes together. Made by `Processes.count`."""

    def __init__(self, processes: Processes, key: str, report: Callable[[int, int], None] | None, total: int):
        self._processes, self._key, self._report, self._total = processes, key, report, total
        self._done = self._unsent = 0
        self._sent_at = -UPDATE_SECONDS

    def add(self, n: int) -> None:
        """This process has done n more units; may be called often."""
        if self._processes.alone:
            self._done += n
            self._show()
        else:
            self._unsent += n
            self._exchange_now_and_then()

    def wait(self) -> None:
        """Wait until the others have done their share too; the main process keeps reporting."""
        if not self._processes.alone:
            self._exchange()
            self._processes.wait(self._exchange_now_and_then)
            self._exchange()

    def _exchange_now_and_then(self) -> None:
        if time.monotonic() - self._sent_at >= UPDATE_SECONDS:
            self._exchange()

    def _exchange(self) -> None:
        processes = self._processes
        with processes._explained():
            self._done = processes._store.add(self._key, self._unsent)
        self._unsent, self._sent_at = 0, time.monotonic()
        if failed := processes.failure():
            raise ProcessError(failed)
        if processes.is_main:
            self._show()

    def _show(self) -> None:
        if self._report:
            self._report(min(self._done, self._total) if self._total else self._done, self._total)


ALONE = _current = Processes()
"""This process alone."""


def current() -> Processes:
    """The processes of this run: those of `join_processes`, or this one alone."""
    return _current


def launched_together() -> bool:
    """Whether a launcher such as torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


@contextlib.contextmanager
def join_processes() -> Iterator[Processes]:
    """Connect to the processes that were started together with this one; alone when there are none. An InputError if
    the launcher did not set the address."""
    global _current
    if not launched_together() or not _current.alone:
        yield _current
        return
    if missing := [name for name in _ADDRESS if not os.environ.get(name)]:
        raise InputError(
            f"{os.environ['WORLD_SIZE']} processes were started, but {', '.join(missing)} is not set; start them with "
            "`torchrun --nproc-per-node N -m ifguide run NAME` or `accelerate launch -m ifguide run NAME`"
        )
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timedelta(minutes=30)))
    dist.init_process_group(
        backend, store=dist.PrefixStore("torch", store), rank=rank, world_size=world_size, timeout=LONGEST_WAIT
    )
    control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    _current = Processes(rank, world_size, dist.PrefixStore("ifguide", store), control)
    try:
        yield _current
        _current.wait()  # leaving while another still works would cut its connections
        dist.destroy_process_group()  # not after a failure, when the others may never answer
    except BaseException as error:
        if isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "/gloo/" in str(error)):
            raise _current.lost() from error  # in an exchange of a library, such as DDP's
        _current.tell_failure(error)
        raise
    finally:
        _current = ALONE
