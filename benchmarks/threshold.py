"""The Threshold page's bars at a million and a billion tokens: index build, exact answers on release, opening, memory.

    python -m benchmarks.threshold [--tokens 1000000 1000000000] [--folder FOLDER] [--keep] [--no-browser]
    python -m benchmarks.threshold --map

A made-up study (see `benchmarks.synthetic`) is written below FOLDER and removed afterwards; a billion tokens need some
25 GB of disk. Building and answering run in processes of their own, so that their memory is theirs alone. RSS counts
the pages of memory maps too, which the system takes back when it needs them; "private" is what cannot be taken back.
Files are read from wherever they lie, which after writing them is mostly the page cache. A selection is saved twice:
by reading all scores, before there is an index, and through the index; both must give the same bytes. With `--map`, it
is the map of 100,000 made-up documents in a browser that is measured.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.memory_watch import Memory
from benchmarks.synthetic import write_index, write_study
from ifguide.config.schema import SelectionConfig
from ifguide.selection.algorithm import rank_documents, select_tokens
from ifguide.selection.choice import read_choice
from ifguide.selection.index import ScoreIndex
from ifguide.selection.saved import Selection, write_selection
from ifguide.selection.verdicts import Target, apply_verdicts
from ifguide.storage import artifacts, memory_maps
from ifguide.study.analysis.document_map import map_path
from ifguide.study.analysis.groups import SOURCE, Mentions, column_shares, group_shares, read_groups, split_documents
from ifguide.study.freshness import inputs_of, settings_of
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study
from ifguide.study.stages.select import compute_selection, open_index, select_best

N_RELEASES = 50
BARS = {"1M": {"release": 0.3, "open": 1.0}, "1B": {"release": 1.5, "open": 2.0}}
GROUPS, GROUPS_UP_TO = 0.02, 20_000_000
BUILD_RATE, BUILD_GIB, BUILD_SIZE, APP_GIB, SAVE_GIB, PREVIEW = 20e6, 4.0, 0.4, 2.0, 1.0, 0.005


def draw_releases(n_valid: int, n_tail: int, seed: int = 0) -> list[dict]:
    """Settings as a person would try them: tokens above log-uniform over the tail, windows 0 to 5, two thirds with a
    budget, log-uniform from a twentieth of what the threshold takes to twice that."""
    draw = np.random.default_rng(seed)
    choices = []
    for number in range(N_RELEASES):
        n_above = int(np.exp(draw.uniform(np.log(max(10, n_valid // 1_000_000)), np.log(n_tail))))
        window = int(draw.integers(0, 6))
        budget = int(n_above * (1 + window) * np.exp(draw.uniform(np.log(0.05), np.log(2)))) if number % 3 else 0
        choices.append({"tokens_above": n_above, "window": window, "max_tokens": budget})
    return choices


def measure_build(root: Path) -> dict:
    """Build the index, in this process."""
    study = Study.open(root.name, root.parent)
    unit = Unit("index")
    with (
        artifacts.building(
            study.folder(unit), stage="index", inputs=inputs_of(study, unit), config=settings_of(study, unit)
        ) as folder,
        Memory() as memory,
    ):
        started = time.perf_counter()
        write_index(study, folder)
        seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in (study.folder(unit) / "own_loss").iterdir())
    return {"seconds": seconds, "rss": memory.rss, "private": memory.private, "bytes": size}


def measure_saving(root: Path) -> dict:
    """Save a selection, one with windows and a budget, the random control, the first corrected by 1,000 verdicts, and
    as many tokens by the same scores as a rival's, in this process."""
    study = Study.open(root.name, root.parent)
    large = SelectionConfig(quantile=0.99, attribution="own_loss")
    small = SelectionConfig(quantile=0.999, attribution="own_loss", window=2, max_tokens=study.corpus().n_tokens // 500)
    corpus, seconds, digests = study.corpus(), [], []
    documents = range(0, corpus.n_documents, max(1, corpus.n_documents // 1_000))
    verdicts = {Target(corpus.document(number).id): "fine" for number in documents}

    def corrected() -> Selection:
        made = compute_selection(study, large, name="saved", kind="influence")
        mask = apply_verdicts(made.mask, corpus, verdicts, out=memory_maps.zeros(corpus.n_tokens, bool, root)).mask
        return replace(made, mask=mask)

    def rival() -> Selection:
        choice = read_choice(large, large, corpus.n_valid, lambda kind: 0)
        return select_best(study, "saved", "rival", study.scores("own_loss"), choice)

    made = [partial(compute_selection, study, choice, name="saved", kind="influence") for choice in (large, small)]
    made.append(partial(compute_selection, study, large, name="saved", kind="random"))
    with Memory() as memory:
        for make in (*made, corrected, rival):
            started = time.perf_counter()
            with tempfile.TemporaryDirectory(dir=root) as folder:
                write_selection(make(), Path(folder))
                seconds.append(time.perf_counter() - started)
                digests.append(artifacts.hash_file(Path(folder) / "mask.npy"))
    return {"seconds": seconds, "digests": digests, "rss": memory.rss, "private": memory.private}


def measure_releases(root: Path) -> dict:
    """Open the index and let go of the handle N_RELEASES times, in this process."""
    study = Study.open(root.name, root.parent)
    with Memory() as memory:
        started = time.perf_counter()
        index = open_index(study, "own_loss")
        preview = index.preview()
        index.words()
        covered = preview.covered.sum(axis=2)
        opened = time.perf_counter() - started
        seconds, errors, rows = [], [], []
        for settings in draw_releases(index.n_valid, index.n_tail):
            resolved = index.resolve(settings)
            seconds.append(resolved.seconds)
            guess = np.interp(resolved.n_above, preview.tokens_above[: len(covered)], covered[:, settings["window"]])
            budget = settings["max_tokens"] or int(resolved.covered.sum())
            errors.append(abs(min(guess, budget) - resolved.n_selected) / budget)
            rows.append(
                {
                    "settings": settings,
                    "n_above": resolved.n_above,
                    "n_selected": resolved.n_selected,
                    "seconds": resolved.seconds,
                }
            )
        checked = 0
        if index.n_valid < 5_000_000:
            checked = sum(
                _is_bit_equal(study, index, settings) for settings in draw_releases(index.n_valid, index.n_tail)
            )
    return {
        "open": opened,
        "seconds": seconds,
        "errors": errors,
        "rss": memory.rss,
        "private": memory.private,
        "checked": checked,
        "rows": rows,
    }


def measure_groups(root: Path) -> dict:
    """What releases take of groups of people and of sources, after the exact result: seconds, and seconds of the
    processor, of those that select at most a twentieth of the tokens (`large`: of the others). Mentions are drawn,
    since made-up words name nobody: a group has from one token in 10,000 to 3 in 1,000."""
    study, draw = Study.open(root.name, root.parent), np.random.default_rng(0)
    index, corpus, sources = open_index(study, "own_loss"), study.corpus(), split_documents(study, SOURCE)
    mentions: list[Mentions] = []
    taken: dict[str, list[float]] = {"seconds": [], "busy": [], "large": []}
    for name in read_groups(study):
        places = np.unique(draw.integers(0, corpus.n_tokens, int(corpus.n_tokens * np.exp(draw.uniform(-9.2, -5.8)))))
        mentions.append(Mentions(name, places, np.searchsorted(corpus.offsets, places, side="right") - 1))
    for settings in draw_releases(index.n_valid, index.n_tail):
        resolved = index.resolve(settings)
        started, before = time.perf_counter(), time.process_time()
        group_shares(corpus, index.mask(resolved), resolved.taken, mentions)
        column_shares(corpus, resolved.taken, *sources)
        busy = time.process_time() - before
        if resolved.n_selected > index.n_valid / 20:
            taken["large"].append(busy)
        else:
            taken["seconds"].append(time.perf_counter() - started)
            taken["busy"].append(busy)
    return taken | {"mentions": sum(len(group.tokens) for group in mentions)}


def _is_bit_equal(study: Study, index: ScoreIndex, settings: dict) -> bool:
    corpus, scores = study.corpus(), np.asarray(study.scores("own_loss"))
    resolved, valid = index.resolve(settings), corpus.valid()
    ranking = rank_documents(scores, corpus.offsets, valid, resolved.threshold, corpus.id_rank)
    mask = select_tokens(
        scores, corpus.offsets, valid, ranking, window=settings["window"], max_tokens=settings["max_tokens"]
    )
    same = (index.mask(resolved) == mask).all() and (ranking.order == resolved.ranking.order).all()
    return bool(
        same
        and ranking.sum_above.tobytes() == resolved.ranking.sum_above.tobytes()
        and mask.sum() == resolved.n_selected
    )


def in_own_process(what: str, root: Path) -> dict:
    """Run one of the measurements above in a fresh interpreter."""
    command = [sys.executable, "-m", "benchmarks.threshold", "--measure", what, "--study", str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return json.loads(done.stdout.splitlines()[-1])


def print_row(size: str, what: str, value: str, bar: str, ratio: float) -> None:
    """One line of the table; a ratio of 1 or less holds the bar."""
    print(f"| {size} | {what} | {value} | {bar} | {ratio:.2f} | {'yes' if ratio <= 1 else 'NO'} |", flush=True)


def measure_size(cache: Path, n_tokens: int, browser: bool) -> None:
    """All rows of one size."""
    size = f"{n_tokens / 1e9:g}B" if n_tokens >= 1e9 else f"{n_tokens / 1e6:g}M"
    bars = BARS["1B" if n_tokens > 5e7 else "1M"]
    study, _ = write_study(cache, f"synthetic-{n_tokens}", n_tokens, until="scores")
    scanned = in_own_process("saving", study.root)
    built = in_own_process("build", study.root)
    saved = in_own_process("saving", study.root)
    if scanned["digests"] != saved["digests"]:
        raise SystemExit("the index selects other tokens than reading all scores does")
    for way, one in (("by reading all scores", scanned), ("through the index", saved)):
        times = ", ".join(f"{value:.1f}" for value in one["seconds"])
        what = f"save 1%, 0.2% with windows, at random, corrected, a rival's, {way} ({times} s): most RSS (private)"
        value = f"{one['rss']:.2f} GiB ({one['private']:.2f})"
        print_row(size, what, value, f"<= {SAVE_GIB:g} GiB", one["rss"] / SAVE_GIB)
    rate = n_tokens / built["seconds"]
    if n_tokens > 5e7:
        print_row(
            size, "index build", f"{rate / 1e6:.1f}M tokens/s", f">= {BUILD_RATE / 1e6:g}M tokens/s", BUILD_RATE / rate
        )
        print_row(
            size,
            "index build, most RSS (private)",
            f"{built['rss']:.2f} GiB ({built['private']:.2f})",
            f"<= {BUILD_GIB:g} GiB",
            built["rss"] / BUILD_GIB,
        )
        share = built["bytes"] / (4 * n_tokens)
        print_row(
            size, "index size, share of the float32 scores", f"{share:.1%}", f"<= {BUILD_SIZE:.0%}", share / BUILD_SIZE
        )
    releases = in_own_process("releases", study.root)
    seconds = np.array(releases["seconds"])
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    print_row(
        size,
        f"exact result after release, p95 of {N_RELEASES} (median, most)",
        f"{p95 * 1e3:.0f} ms ({p50 * 1e3:.0f}, {seconds.max() * 1e3:.0f})",
        f"<= {bars['release'] * 1e3:g} ms",
        p95 / bars["release"],
    )
    print_row(
        size,
        "open the index and read its preview and words",
        f"{releases['open'] * 1e3:.0f} ms",
        f"<= {bars['open'] * 1e3:g} ms",
        releases["open"] / bars["open"],
    )
    print_row(
        size,
        "preview error, most, share of the budget",
        f"{max(releases['errors']):.3%}",
        f"<= {PREVIEW:.1%}",
        max(releases["errors"]) / PREVIEW,
    )
    print_row(
        size,
        "index in use, most RSS (private)",
        f"{releases['rss']:.2f} GiB ({releases['private']:.2f})",
        f"<= {APP_GIB:g} GiB",
        releases["rss"] / APP_GIB,
    )
    if n_tokens <= GROUPS_UP_TO:
        groups = in_own_process("groups", study.root)
        middle, most = (np.quantile(groups[what], 0.95) * 1e3 for what in ("busy", "seconds"))
        what = f"groups after release, {groups['mentions']:,} mentions, p95: processor (wall)"
        print_row(size, what, f"{middle:.0f} ms ({most:.0f})", f"<= {GROUPS * 1e3:g} ms", middle / GROUPS / 1e3)
    if releases["checked"]:
        print_row(
            size,
            "of these, bit-equal to ifguide.selection.algorithm",
            f"{releases['checked']} of {N_RELEASES}",
            f"{N_RELEASES}",
            N_RELEASES / max(releases["checked"], 1e-9),
        )
    os.sync()  # what was written is on the disk before the pages are timed
    if browser and importlib.util.find_spec("benchmarks.threshold_browser"):
        from benchmarks.threshold_browser import browser_rows

        for row in browser_rows(study.root, n_tokens):
            print_row(size, *row)


def measure_map(cache: Path) -> None:
    """All rows of the map: documents of about 40 tokens at made-up places, in thirty heaps."""
    from benchmarks.threshold_browser import map_rows

    study, _ = write_study(cache, "map", 4_000_000, length=40)
    draw, path = np.random.default_rng(0), map_path(study)
    heaps = draw.normal(0, 40, (30, 2))[draw.integers(0, 30, study.corpus().n_documents)]
    path.parent.mkdir()
    np.save(path, (heaps + draw.normal(0, 6, heaps.shape)).astype(np.float32))
    for row in map_rows(study.root):
        print_row("4M", *row)


MEASURES = {"build": measure_build, "saving": measure_saving, "releases": measure_releases, "groups": measure_groups}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=float, nargs="+", default=[1e6, 1e9])
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--keep", action="store_true", help="do not remove the studies")
    parser.add_argument("--no-browser", action="store_true", help="leave out what needs Chromium")
    parser.add_argument("--map", action="store_true", help="measure the map of documents alone")
    parser.add_argument("--measure", choices=tuple(MEASURES), help=argparse.SUPPRESS)
    parser.add_argument("--study", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.study)))
        return
    cache = Path(tempfile.mkdtemp(prefix="ifguide-threshold-", dir=options.folder))
    print(f"NumPy {np.__version__}, {os.cpu_count()} CPUs; {cache if options.keep else 'nothing is kept'}\n")
    print("| tokens | what | measured | bar | measured / bar | held |\n|---|---|---|---|---|---|")
    try:
        if options.map:
            measure_map(cache)
        for n_tokens in [] if options.map else options.tokens:
            measure_size(cache, int(n_tokens), not options.no_browser)
            if not options.keep:
                shutil.rmtree(cache / f"synthetic-{int(n_tokens)}")
    finally:
        if not options.keep:
            shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    main()
