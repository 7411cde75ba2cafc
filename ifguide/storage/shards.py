"""Scores in shards: fixed runs of documents, each written whole or not at all.

A killed run loses at most the shard it was computing. Which documents make a shard depends on the corpus alone, and
each shard is computed by itself, so a resumed run, and several processes, give the same bytes as one undisturbed run.
"""

from pathlib import Path

import numpy as np

from ifguide.storage.artifacts import replacing, save_blocks, sync

SHARD_TOKENS = 1 << 20
"""A shard holds about this many tokens; documents are never divided."""


def plan_shards(offsets: np.ndarray, shard_tokens: int = SHARD_TOKENS) -> np.ndarray:
    """Bounds int64 (S+1,) in documents, from offsets int64 (D+1,): shard s holds documents [bounds[s], bounds[s+1]),
    those that begin in its `shard_tokens` tokens."""
    starts, n_documents = offsets[:-1], len(offsets) - 1  # a view: a memory map is not read as a whole
    edges = np.arange(0, int(starts[-1]) + 1, shard_tokens, dtype=np.int64)
    return np.unique(np.append(np.searchsorted(starts, edges), n_documents)).astype(np.int64)


class ShardStore:
    """The shards of some per-token values, such as the `names` own_loss and token_loss, in a folder that is made if
    missing. `offsets` are int64 (D+1,), `bounds` int64 (S+1,), from `plan_shards`."""

    def __init__(self, folder: Path, names: tuple[str, ...], offsets: np.ndarray, bounds: np.ndarray):
        self.folder, self.names = folder, names
        self.tokens = np.asarray(offsets[bounds])
        """int64 (S+1,): shard s holds tokens [tokens[s], tokens[s+1])."""
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self.tokens) - 1

    def count_tokens(self, shards: list[int]) -> int:
        """Tokens of some shards."""
        return int(sum(self.tokens[shard + 1] - self.tokens[shard] for shard in shards))

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{self.names[0]}-{shard:06d}.npy"

    def has(self, shard: int) -> bool:
        """Whether a shard is there; if it is, it is whole."""
        return self.path(shard).is_file()

    def write(self, shard: int, values: dict[str, np.ndarray]) -> None:
        """Write a shard: float32 (n,) arrays by name, n its number of tokens."""
        with replacing(self.path(shard)) as temporary:
            with temporary.open("wb") as stream:
                np.save(stream, np.stack([values[name] for name in self.names]))
            sync(temporary)

    def assemble(self, folder: Path) -> None:
        """Lay all shards end to end in `<name>.npy` files of one float32 a token."""
        for place, name in enumerate(self.names):
            rows = (np.load(self.path(shard), mmap_mode="r", allow_pickle=False)[place] for shard in range(len(self)))
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            save_blocks(rows, folder / f"{name}.npy", np.float32)
