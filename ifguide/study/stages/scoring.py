"""The one path from a model to scores: each kind of attribution at each checkpoint, in shards that survive a kill, then
put together over the checkpoints."""

import importlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ifguide.config.attributions import KINDS, computed_kinds
from ifguide.config.io import config_to_dict
from ifguide.config.schema import ScoresConfig
from ifguide.data.corpus import TokenizedCorpus
from ifguide.errors import ConfigError
from ifguide.runtime.distributed import current
from ifguide.runtime.progress import Progress, report_part
from ifguide.storage import artifacts
from ifguide.storage.shards import ShardStore, plan_shards
from ifguide.storage.work import open_work
from ifguide.study.freshness import inputs_of, require_fresh, settings_of
from ifguide.study.lineage import READ_BY_SCORES, Unit
from ifguide.study.reading import Study
from ifguide.study.stages.attributions import Place, Scorer, make_scorer
from ifguide.study.stages.checkpoints import Direction, corpus_sequences, named_file


def score_kinds(
    study: Study,
    unit: Unit,
    folder: Path,
    progress: Progress,
    kinds: Sequence[str],
    *,
    checkpoints: Sequence[str],
    treatment: ScoresConfig | None = None,
    sets: Sequence[str] = ("",),
    directions: Callable[[str], list[Direction]] | None = None,
    task: tuple[int, int] | None = None,
) -> dict:
    """Score the corpus at each checkpoint and put the checkpoints together; all processes take part.

    Writes `CHECKPOINT/KIND.npy` and `KIND.npy` into the folder, float32 (N,), and `extra/NAME/KIND.npy` likewise for an
    extra pair of query sets. What is finished of the unit outlives a kill.

    Args:
        kinds: names of `KINDS`.
        checkpoints: names of scoring checkpoints, or `base`.
        treatment: how checkpoints are put together: its `average` and `pooling`; None: they are not.
        sets: pairs of query sets, empty for the study's own.
        directions: gives v of each pair at a checkpoint; None: as stored.
        task: (number, of how many): compute this part's shards alone, and put nothing together.

    Returns:
        The scorers' notes, by key and checkpoint.
    """
    processes = current()
    notes: dict[str, dict] = {}
    work = Path(processes.decide(lambda: str(open_scoring(study, unit))))
    computed = [kind for kind in kinds if KINDS[kind].module and not KINDS[kind].parts]
    turns, given = list(itertools.product(checkpoints, computed)), set[tuple[str, str]]()
    for number, (checkpoint, kind) in enumerate(turns):
        along = directions(checkpoint) if directions else None
        place = Place(
            study=study, checkpoint=checkpoint, sets=sets, directions=along, probes={"own_loss", "probe"} <= {*computed}
        )
        report = report_part(progress, part=number, parts=len(turns))
        if kind == "probe" and given.issuperset((checkpoint, file) for file in place.files(kind)):
            report(1, 1)  # by the passes of influence
            continue
        scorer = make_scorer(kind, place)
        given.update((checkpoint, file) for file in scorer.files)
        store = score_in_shards(study, work / checkpoint, scorer, report, task)
        if processes.is_main and not task:
            store.assemble(folder / checkpoint)
        for key, value in scorer.notes.items():
            notes.setdefault(key, {})[checkpoint] = value
        del scorer  # before the next model is loaded
    if processes.is_main and treatment:
        put_together(study.corpus(), [folder / name for name in checkpoints], folder, kinds, treatment, sets)
    return notes


def score_task(study: Study, task: int, tasks: int, progress: Progress) -> None:
    """Compute one part of the corpus's shards, those whose number is `task` modulo `tasks`, and leave them for the run
    that puts all parts together. Parts may run at the same time, on machines that share the study's folder: they need
    neither the study's lock nor each other. What is there is kept.

    Raises:
        ConfigError: a part that does not exist.
        StaleError: a stage before the scores is missing or out of date.
    """
    if not 0 <= task < tasks:
        raise ConfigError(f"--task: expected 0 to {tasks - 1}, the parts of --tasks {tasks}, got {task}")
    require_ready(study)
    unit = Unit("scores")
    checkpoints, sets, kinds = study.checkpoint_names(), study.query_sets(), computed_kinds(study.config.scores)
    score_kinds(study, unit, study.root, progress, kinds, checkpoints=checkpoints, sets=sets, task=(task, tasks))


def require_ready(study: Study) -> None:
    """A StaleError unless every stage before the scores is fresh; it names the command that builds them."""
    before = READ_BY_SCORES[:-1]
    for unit in (unit for stage in before for unit in study.units(stage)):
        require_fresh(study, unit, f"run {study.name} --until {before[-1]}")


def open_scoring(study: Study, unit: Unit) -> Path:
    """The folder of unfinished scores, which outlives a killed run, and one whose batch was halved."""
    compute = {key: value for key, value in config_to_dict(study.config.compute).items() if key != "tokens_per_batch"}
    key = {"inputs": inputs_of(study, unit), "settings": settings_of(study, unit), "compute": compute}
    return open_work(study.root, unit.stage, key)


def score_in_shards(
    study: Study, work: Path, scorer: Scorer, report: Callable[[int, int], None], task: tuple[int, int] | None = None
) -> ShardStore:
    """Score the corpus, or the shards of a task, shard by shard: each of the scorer's files, one float32 a token.

    Shard s belongs to process s modulo their number. A shard in `work` is kept, whichever process or task made it.
    """
    from ifguide.influence.attribution import score_corpus
    from ifguide.influence.batches import make_batches

    corpus, processes = study.corpus(), current()
    bounds = plan_shards(corpus.offsets)
    store = ShardStore(work, scorer.files, corpus.offsets, bounds)
    number, step = task or (0, 1)
    task_shards = list(range(number, len(store), step))
    mine = [shard for shard in task_shards if processes.owns(shard)]
    due = [shard for shard in mine if not store.has(shard)]
    count = processes.count(report, store.count_tokens(task_shards))
    count.add(store.count_tokens(mine) - store.count_tokens(due))
    for shard in due:
        first, stop = int(store.tokens[shard]), int(store.tokens[shard + 1])
        values = {name: np.zeros(stop - first, dtype=np.float32) for name in scorer.files}
        sequences = corpus_sequences(study, documents=(int(bounds[shard]), int(bounds[shard + 1])))
        counted = 0

        def tell(done: int, n_tokens: int = stop - first) -> None:
            nonlocal counted
            count.add(min(done, n_tokens) - counted)
            counted = min(done, n_tokens)

        batches = make_batches(sequences, study.config.compute.tokens_per_batch)
        score_corpus(batches, scorer.by_file, values, first=first, device=scorer.device, report=tell)
        store.write(shard, values)
        tell(stop - first)
    count.wait()
    return store


def put_together(
    corpus: TokenizedCorpus,
    parts: Sequence[Path],
    folder: Path,
    kinds: Sequence[str],
    treatment: ScoresConfig,
    sets: Sequence[str] = ("",),
) -> list[str]:
    """The study's own arrays from its checkpoints', block by block: memory does not grow with the corpus. `kinds`,
    `treatment` and `sets` are as for `score_kinds`; a kind that no checkpoint has is left out. Returns the files that
    were written, without `.npy`."""
    from ifguide.influence.attribution import mean_blocks

    done = []
    for queries, kind in itertools.product(sets, kinds):
        described, file = KINDS[kind], named_file(kind, queries)
        path = folder / f"{file}.npy"
        sources = [part / f"{file}.npy" for part in parts]
        if described.parts:
            sources = [folder / f"{named_file(part, queries)}.npy" for part in described.parts]
        arrays = [artifacts.load_array(source) for source in sources if source.exists()]
        if not arrays or (queries and not described.directional):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if described.parts:
            blocks = importlib.import_module(described.module).combine(arrays, corpus)
            artifacts.save_blocks(blocks, path, np.float32)
        elif described.selects:
            if kind == "position" and treatment.position_token == "input":
                arrays = [move_to_input(array, np.asarray(corpus.offsets)) for array in arrays]
            treat(corpus, arrays, path, treatment)
        else:
            artifacts.save_blocks(mean_blocks(arrays), path, np.float32)
        done.append(file)
    return done


def move_to_input(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Scores float32 (N,) at the token that a position reads, from those at the token that it predicts; a document's
    last token, after which nothing is predicted, has 0."""
    moved = np.append(scores[1:], np.float32(0))
    moved[offsets[1:] - 1] = 0
    return moved


def treat(corpus: TokenizedCorpus, arrays: Sequence[np.ndarray], path: Path, treatment: ScoresConfig) -> None:
    """Average over checkpoints and pool, as `treatment.average` and `.pooling` say: what every method's scores go
    through, ours and others' alike. `arrays` are float32 (N,), one a checkpoint, and so is what is written to
    `path`."""
    from ifguide.influence.attribution import average_blocks, pool_blocks

    blocks = average_blocks(list(arrays), corpus.valid_between, average=treatment.average)
    artifacts.save_blocks(blocks, path, np.float32)
    if treatment.pooling:
        single = path.rename(path.with_suffix(".single.npy"))
        apart = artifacts.load_array(single)
        blocks = pool_blocks(apart, corpus.token_ids, corpus.valid_between, treatment.pooling)
        artifacts.save_blocks(blocks, path, np.float32)
        single.unlink()
