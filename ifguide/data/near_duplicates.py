"""Documents that are nearly the same text, found by MinHash over runs of tokens.

Shapes: D documents, N tokens, P = N_PERMUTATIONS. Two documents are near-duplicates when the Jaccard similarity of
their sets of `SHINGLE` neighbouring tokens, as estimated by MinHash, is at least `SIMILARITY`. Such pairs are connected
into groups.
"""

import functools

import numpy as np
import rensa

from ifguide.data.by_document import document_runs

SHINGLE = 5
"""Neighbouring tokens in one element of a document's set; a shorter document is one element."""
SIMILARITY = 0.8
N_PERMUTATIONS = 64
_BANDS = 16
_SEED = 1
_TOKENS_AT_ONCE = 4_000_000
_MIX = np.uint64(0x9E3779B97F4A7C15)


def group_near_duplicates(token_ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The group of every document, int32 (D,): the number of the group's first document; a document alone is its own
    group.

    `token_ids`, int32 (N,), holds the documents laid end to end; it may be memory-mapped, and is read once from start
    to end. `offsets` is int64 (D+1,).
    """
    offsets = np.asarray(offsets)
    signatures = np.empty((len(offsets) - 1, N_PERMUTATIONS), dtype=np.uint32)
    for first, stop in document_runs(offsets, _TOKENS_AT_ONCE):
        tokens = np.asarray(token_ids[offsets[first] : offsets[stop]])
        hashes, bounds = _hash_shingles(tokens, offsets[first : stop + 1])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, bounds, N_PERMUTATIONS, _SEED)
        signatures[first:stop] = np.array(matrix.to_rows(), dtype=np.uint32)
    return _link_similar(signatures)


def _hash_shingles(tokens: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One hash a shingle, uint64, and where each document's begin (with the end of the last)."""
    lengths = np.diff(offsets)
    counts = np.maximum(lengths - SHINGLE + 1, np.minimum(lengths, 1))
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, … of each document
    starts = np.repeat(offsets[:-1] - offsets[0], counts) + within
    ends = np.repeat(offsets[1:] - offsets[0], counts)
    hashes = np.zeros(len(starts), dtype=np.uint64)
    for step in range(SHINGLE):
        place = starts + step
        value = tokens[np.minimum(place, len(tokens) - 1)].astype(np.uint64) + np.uint64(1)
        hashes = _mix(hashes, np.where(place < ends, value, np.uint64(0)))
    return hashes, bounds


def _mix(hashes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Hashes, uint64, each with one more value mixed in."""
    mixed = (hashes ^ values) * _MIX
    return mixed ^ (mixed >> np.uint64(29))


def _link_similar(signatures: np.ndarray) -> np.ndarray:
    """Connect signatures that share a band and agree in at least a share `SIMILARITY` of their values; int32 (D,)."""
    group = np.arange(len(signatures), dtype=np.int32)

    def root(member: int) -> int:
        while group[member] != member:
            group[member] = group[group[member]]
            member = int(group[member])
        return member

    for band in np.split(signatures, _BANDS, axis=1):
        key = functools.reduce(_mix, band.T, np.zeros(len(band), dtype=np.uint64))
        order = np.argsort(key, kind="stable")
        same = np.flatnonzero(key[order][1:] == key[order][:-1])
        left, right = order[same], order[same + 1]
        alike = (signatures[left] == signatures[right]).mean(axis=1) >= SIMILARITY
        for a, b in zip(left[alike].tolist(), right[alike].tolist(), strict=True):
            a, b = sorted((root(a), root(b)))
            group[b] = a
    for member in np.flatnonzero(group != np.arange(len(group))).tolist():
        group[member] = root(member)
    return group
