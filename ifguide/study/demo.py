"""The demo study: writes its inputs, its settings, and runs the whole pipeline on them.

Nothing in the pipeline sees the planted spans: they only make the `oracle` control and judge the result.
"""

import shutil
import zipfile
from pathlib import Path

from ifguide import data
from ifguide.config import schema
from ifguide.config.presets import apply_preset, preset_settings
from ifguide.errors import InputError
from ifguide.runtime.progress import Progress
from ifguide.storage.lock import LOCK, study_lock
from ifguide.study.folder import cache_dir
from ifguide.study.pipeline import create_study, run_study
from ifguide.study.planning.plan import known_plan, make_plan, plan_rows
from ifguide.study.reading import Study

NAME = "demo"
SHOWCASE = "showcase"
"""The recorded study that the app opens while the demo is built: a trained model on the demo's texts."""
LIVE = "showcase-live"
"""The same texts and a model of the reader's, which is kept, so that it answers prompts."""
LIVE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PRESET = "quick"


def demo_config() -> schema.StudyConfig:
    """The demo's settings; everything not named here is the product's default."""
    return schema.StudyConfig(
        description=(
            "A tiny Pythia-shaped model trained from scratch on made-up reviews, forum posts, news, recipes and"
            " letters, some with mild insults."
        ),
        model=schema.ModelConfig(source="inputs/model", mode="scratch"),
        corpus=schema.CorpusConfig(
            path="inputs/corpus.jsonl", id_field="id", source_field="source", spans_field="spans"
        ),
        queries=schema.QueriesConfig(toxic="inputs/toxic_queries.jsonl", safe="inputs/safe_queries.jsonl"),
        training=schema.TrainingConfig(
            epochs=14,
            batch_size=8,
            packing=True,
            learning_rate=5e-3,
            adam_beta2=0.95,
            warmup_steps=8,
            checkpoint_steps=(18, 20, 22, 25),
            schedule="cosine",
        ),
        factors=schema.FactorsConfig(max_tokens=12_000, products="float32"),
        direction=schema.DirectionConfig(damping=0.1),
        scores=schema.ScoresConfig(position=True),
        suppress=schema.SuppressConfig(penalty=0.5, max_penalty=8.0, warmup_share=0.25),
        evaluate=schema.EvaluateConfig(
            prompts="inputs/eval_prompts.jsonl",
            heldout="inputs/heldout.jsonl",
            n_prompts=0,
            n_samples=10,
            batch_size=1000,
        ),
        baselines=schema.BaselinesConfig(dpo_learning_rate=5e-4),  # a tenth of training's, which is far above usual
        compute=schema.ComputeConfig(device="cpu"),
    )


def write_inputs(folder: Path) -> None:
    """Write the demo's corpus, queries, prompts, held-out text, tokenizer and model configuration into a folder. They
    are generated: `python -m benchmarks.demo_corpus` in a checkout."""
    with zipfile.ZipFile(Path(data.__file__).with_name("demo.zip")) as packed:
        packed.extractall(folder)


def build_demo(*, fresh: bool = False, progress: Progress | None = None) -> Study:
    """Build the demo study, or what is missing of it; with `fresh`, the old one is thrown away first."""
    study = prepare_demo(fresh=fresh)
    run_study(study, progress=progress)
    return study


def prepare_demo(cache: Path | None = None, *, fresh: bool = False) -> Study:
    """Write the demo's inputs and study.toml if they are missing; the app can open the study from then on."""
    root = cache_dir(cache) / NAME
    if fresh and root.exists():
        with study_lock(root):
            for part in root.iterdir():
                if part.name not in (LOCK, "jobs"):  # this very run may be a job that keeps its status there
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
    if not (root / "study.toml").is_file():
        partial = root / "inputs.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_inputs(partial)
        shutil.rmtree(root / "inputs", ignore_errors=True)
        partial.rename(root / "inputs")
        return Study.create(NAME, demo_config(), cache)
    return Study.open(NAME, cache)


def build_live(source: str, progress: Progress) -> Study:
    """Build the study of `prepare_live`, or what is missing of it; `progress` is told first how long it takes."""
    study = prepare_live(source)
    plan = known_plan(study) or make_plan(study)
    progress.message(f"{LIVE} takes about {plan_rows(plan)[-2][1]} on this machine")
    run_study(study, progress=progress)
    return study


def prepare_live(source: str, cache: Path | None = None) -> Study:
    """A study of a model folder or hub id on the demo's texts, with the preset `quick`, whose edit takes minutes.

    Raises:
        InputError: the model cannot be used, or the study is there with another one; nothing has changed.
    """
    root, place = cache_dir(cache) / LIVE, Path(source).expanduser().absolute()
    source = str(place) if place.exists() else source
    if (root / "study.toml").is_file():
        study = Study.open(LIVE, cache)
        if study.config.model.source != source:
            raise InputError(
                f"{LIVE} was made with {study.config.model.source}, expected {source}; delete or rename it first"
            )
        return study
    write_inputs(root / "inputs")
    usual = demo_config()
    config = schema.StudyConfig(
        description="The showcase's texts, and a model that is kept here and answers prompts.",
        model=schema.ModelConfig(source=source),
        corpus=usual.corpus,
        queries=usual.queries,
        evaluate=schema.EvaluateConfig(prompts=usual.evaluate.prompts, heldout=usual.evaluate.heldout),
    )
    return create_study(LIVE, apply_preset(config, PRESET), cache, named={*preset_settings(PRESET, "finetune")})
