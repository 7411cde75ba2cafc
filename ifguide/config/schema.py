"""The settings of a study, one frozen dataclass per table of `study.toml`: their types, bounds, defaults and texts.

`ifguide.config.validation` says how values are checked and which errors that raises.
"""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from ifguide.config.attributions import KINDS, attributions, computed_kinds
from ifguide.config.names import DEFAULT
from ifguide.config.suppression import BaselinesConfig, SuppressConfig, VariantConfig
from ifguide.config.types import (
    AtLeastOne,
    AtLeastTwo,
    ChunkLength,
    ColumnName,
    Count,
    FileName,
    Flag,
    Name,
    NotNegative,
    Number,
    Positive,
    Seed,
    Share,
    TableName,
    Text,
)
from ifguide.config.validation import table


@table("corpus")
class CorpusConfig:
    """Where the training documents come from."""

    path: Text = ""
    """A file (.jsonl, .csv, .tsv, .parquet, .txt), a folder of files, a saved `datasets` folder, or a hub id."""
    text_field: Text = "text"
    """Column with the document's text, `meta.text` for a nested one. Without it, `messages` or `conversations` are read
    as chats, or the next two columns."""
    prompt_field: Text = "prompt"
    """Column with the prompt that a completion follows."""
    completion_field: Text = "completion"
    """Column with the completion."""
    train_on: Literal["auto", "all", "completion"] = "auto"
    """Which tokens are trained on, scored and selected: `all`, `completion` (of a chat, the assistant's turns), or
    `auto` (`all` of plain text, else `completion`)."""
    id_field: Text = ""
    """Column with a unique id; empty: documents are numbered."""
    source_field: Text = ""
    """Column with the document's source; empty: the file's name."""
    spans_field: Text = ""
    """Column with known toxic character spans. They are used to evaluate the result, never to compute it."""
    text_unit: Literal["line", "file"] = "line"
    """For plain text: `line` (one document per line) or `file` (one document per file)."""
    skip_empty: Flag = True
    """Skip and count documents without text; false makes them an error."""
    max_documents: Count = 0
    """Read only this many documents, from the start; 0 reads all."""
    concatenate: Flag = False
    """Run documents together and rank chunks of `max_length` tokens in their place, as the paper's released code."""
    max_length: ChunkLength = 0
    """Maximum chunk length in tokens; 0 uses the model's context length."""


@table("queries.extra")
class QuerySetsConfig:
    """Another pair of query sets, read like the main one."""

    toxic: FileName
    """File of toxic queries."""
    safe: FileName
    """File of safe queries."""


@table("queries")
class QueriesConfig:
    """The two sets of (prompt, completion) pairs that define what is toxic and what is safe."""

    toxic: Text = ""
    """File of toxic queries."""
    safe: Text = ""
    """File of safe queries."""
    prompt_field: Text = "prompt"
    """Column with the prompt."""
    completion_field: Text = "completion"
    """Column with the completion; RealToxicityPrompts' `continuation` is found automatically."""
    text_field: Text = "text"
    """Column to split into prompt and completion when a row has neither."""
    split_share: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """Fraction of a plain text's words that becomes the prompt; the rest is the completion."""
    toxic_min: Share = 0.5
    """Rows with toxicity scores become toxic queries when prompt and completion both score at least this."""
    safe_max: Share = 0.25
    """Rows with toxicity scores become safe queries when prompt and completion both score less than this."""
    max_queries: Count = 0
    """Maximum number of queries per set, from the start; 0 reads all."""
    extra: dict[TableName, QuerySetsConfig] = field(default_factory=dict)
    """More pairs of query sets, scored in the same pass: tables `[queries.extra.NAME]` with `toxic` and `safe`."""


@table("model")
class ModelConfig:
    """Which model is studied and how it is made."""

    source: Text = ""
    """A Hugging Face model folder or hub id; for `scratch`, a folder with config.json and a tokenizer is enough."""
    revision: Text = ""
    """Hub revision of `source`; empty: the default branch."""
    mode: Literal["scratch", "finetune", "asis"] = "finetune"
    """`finetune` (`source` trained on the corpus), `scratch` (the same from random weights) or `asis` (not trained)."""
    checkpoints: tuple[Text, ...] = ()
    """For `asis`: checkpoints to score at, as folders or `id@revision` names; empty: `source` alone."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Precision of the weights while scoring: float32, bfloat16 or float16. Sums are float32 in any case."""
    modules: Text = ""
    """Regular expression for the modules to track; empty: every linear layer, expert and router inside the blocks."""


@table("training")
class TrainingConfig:
    """How models are trained: the same for the base model and for every suppressed one."""

    epochs: Positive = 2.0
    """Passes over the corpus."""
    max_steps: Count = 0
    """Optimiser steps to train for, instead of `epochs`; 0: `epochs` decides."""
    batch_size: AtLeastOne = 8
    """Rows per batch, divided among the processes of a run."""
    gradient_accumulation: AtLeastOne = 1
    """Batches per optimiser step."""
    learning_rate: Positive = 2e-4
    """Peak learning rate of AdamW."""
    warmup_steps: Count = 10
    """Optimiser steps of linear warm-up."""
    warmup_share: Share = 0.0
    """Linear warm-up over this fraction of the steps, instead of `warmup_steps`; 0: `warmup_steps` decides."""
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Learning-rate schedule after warm-up: linear, cosine or constant."""
    weight_decay: NotNegative = 0.01
    """AdamW's decoupled weight decay."""
    adam_beta2: Annotated[Number, Field(ge=0, lt=1)] = 0.999
    """AdamW's β₂, the decay rate of the second moment; 0.95 learns faster in short runs from scratch."""
    max_grad_norm: NotNegative = 1.0
    """Gradient clipping norm; 0 disables clipping."""
    packing: Flag = False
    """Pack several documents into a row, separated by an end-of-text token."""
    seed: Seed = 0
    """Seed of the random initialisation, the order of the rows, and dropout."""
    early_checkpoints: Count = 4
    """Number of log-spaced checkpoints to keep from early training, for scoring."""
    checkpoint_steps: tuple[AtLeastOne, ...] = ()
    """Optimiser steps to keep checkpoints of, instead of log-spaced ones."""
    include_last_checkpoint: Flag = False
    """Also score at the end of training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """float32, or bfloat16 for automatic mixed precision on devices that support it."""
    save_steps: Count = 500
    """Save the state of an unfinished training every this many steps, and every four minutes; 0: never."""
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """`adamw-8bit` keeps AdamW's two moments in 8 bits instead of 32 (bitsandbytes)."""
    gradient_checkpointing: Flag = False
    """Keep only each layer's inputs for the backward pass and compute the rest again: less memory, slower."""
    report_to: Literal["", "trackio", "wandb", "tensorboard"] = ""
    """Also send the training log to an experiment tracker; empty: to none."""
    adapter: Literal["", "lora"] = ""
    """`lora` trains low-rank adapters (PEFT) instead of all weights, and merges them; empty: all weights."""
    lora_rank: AtLeastOne = 16
    """Rank of the adapters."""
    lora_alpha: Positive = 32.0
    """LoRA's α: adapters are scaled by α / rank."""


@table("factors")
class FactorsConfig:
    """How EK-FAC's curvature factors are fitted."""

    strategy: Literal["ekfac", "identity"] = "ekfac"
    """`ekfac`, or `identity` (no curvature, for ablation)."""
    labels: Literal["sampled", "true"] = "sampled"
    """Labels for the Fisher matrix: `sampled` from the model (the true Fisher) or `true` (the empirical Fisher)."""
    max_tokens: Count = 0
    """Fit on about this many corpus tokens at most, in whole documents drawn at random; 0 uses all."""
    products: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the eigenvalues' products; `auto`: bfloat16 where it is faster. Sums and covariances are float32."""
    dtype: Literal["float32", "bfloat16", "bfloat16-file"] = "float32"
    """Precision of the factors: `float32`, `bfloat16` (covariances, eigenvectors and eigenvalues are rounded once they
    are summed), or `bfloat16-file` (rounded only when they are written: half the file, nearly the same direction)."""
    partitions: Count = 0
    """Fit the layers in this many parts, each in two passes over the tokens with only its own matrices in memory; 0:
    the fewest that each take at most half of the free memory. Results change by rounding at most."""
    rank: Count = 0
    """Keep the top eigenvectors, this many a side of a layer, and one mean eigenvalue for the rest; 0: all."""
    seed: Seed = 0
    """Seed of the sampled labels and of the documents drawn."""


@table("direction")
class DirectionConfig:
    """How the query sets become one direction v in parameter space."""

    damping: Positive = 10.0
    """Damping, as a multiple of each module's mean eigenvalue."""
    damping_unit: Literal["mean-eigenvalue", "absolute"] = "mean-eigenvalue"
    """What `damping` is counted in: `mean-eigenvalue`, or `absolute` (the same number for every module)."""
    weighting: Literal["token-mean", "token-sum"] = "token-mean"
    """A query's loss is the mean (`token-mean`) or the sum (`token-sum`) over its completion tokens."""
    differential: Flag = True
    """Toxic minus safe gradient; false uses the toxic queries alone (standard influence)."""
    objective: Literal["loss", "margin"] = "loss"
    """`loss` (-log p) or `margin` (-log p/(1-p), whose gradient does not vanish when the model is certain)."""


@table("scores")
class ScoresConfig:
    """How every corpus token is scored."""

    own_loss: Flag = True
    """Compute own-loss influence, and each token's loss. A study without influence needs no curvature."""
    derivative: Literal["auto", "jvp", "central"] = "auto"
    """`auto` (the fastest that agrees with `jvp` on a sample), `jvp` (exact), or `central` (central differences)."""
    position: Flag = False
    """Also compute `position` attribution, for comparison."""
    position_token: Literal["predicted", "input"] = "predicted"
    """Which token has the influence that flows through a position: the one it predicts, or the one it reads."""
    probe: Flag = True
    """Also score every token with a linear probe of the model's hidden states, fitted on the queries."""
    combined: Flag = True
    """Also combine influence and probe."""
    tfidf: Flag = False
    """Also scale influence by how few documents have the token, log(N/(df+1))."""
    probe_method: Literal["mean-difference", "logistic"] = "mean-difference"
    """The probe's direction: difference of the mean states, or logistic regression."""
    average: Literal["mean", "median"] = "median"
    """How the scores at the checkpoints, each divided by its standard deviation, are combined."""
    pooling: NotNegative = 1.0
    """Add this multiple of the mean score over all occurrences of the same vocabulary entry; 0 disables it."""


@table("selection")
class SelectionConfig:
    """Algorithm 1: which tokens are selected."""

    attribution: Name = "combined"
    """Scores to select by: `own_loss`, `position`, `probe`, `combined`, `tfidf`, or a table `[imported.NAME]`."""
    quantile: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """The threshold is this quantile of all valid scores, and tokens strictly above it are hits; 0 finds the upper tail
    of the scores without labels. Where that is no token, the highest 0.5% are taken."""
    quantile_rule: Literal["rank", "linear"] = "rank"
    """`rank` (the lowest score with at least that share at or below it) or `linear` (between two scores, as NumPy)."""
    window: Count = 0
    """Tokens selected on each side of a hit, within its document."""
    max_tokens: Count = 0
    """Token budget, spent on documents in rank order; 0: no budget."""
    whole_windows: Flag = False
    """Stop before the hit whose window the budget would cut."""
    controls: tuple[Literal["random", "oracle"], ...] = ("random", "oracle")
    """Control masks to build: `random` (the same number of tokens), `oracle` (the known spans, if there are any)."""
    seed: Seed = 0
    """Seed of the random control."""


@table("borrowed")
class BorrowedConfig:
    """A selection taken from another study of the same texts (`ifguide borrow`). A table `[borrowed.NAME]`."""

    study: Name
    """The other study, in the same cache."""
    selection: Name = DEFAULT
    """Which of its selections."""


@table("imported")
class ImportedConfig:
    """Token scores from a file (`ifguide select --scores`). A table `[imported.NAME]`."""

    path: FileName
    """A Parquet or JSON lines file with the columns document, token (or start and end) and score, or a .npy array."""


@table("evaluate")
class EvaluateConfig:
    """How models are evaluated."""

    prompts: Text = ""
    """File of prompts to complete; empty: the prompts of the toxic queries."""
    prompt_field: Text = "prompt"
    """Column with the prompt."""
    group_field: Text = ""
    """Column with the prompt's group, for results per group; empty: `group`, or the groups in AttaQ and BOLD files."""
    n_prompts: Count = 200
    """Use only this many prompts; 0 uses all."""
    heldout: Text = ""
    """File of benign held-out text for perplexity; empty: no perplexity is reported."""
    text_field: Text = "text"
    """Column with the held-out text."""
    n_heldout: Count = 0
    """Use only this many held-out texts; 0 uses all."""
    n_samples: AtLeastOne = 8
    """Completions per prompt (k)."""
    max_new_tokens: AtLeastOne = 20
    """Length of a completion in tokens."""
    top_p: Annotated[Number, Field(gt=0, le=1)] = 0.9
    """Nucleus sampling: sample from the smallest set of tokens with this total probability."""
    temperature: Positive = 1.0
    """Sampling temperature."""
    seed: Seed = 0
    """Seed of the completions; each also depends on its prompt and sample number."""
    scorer: Text = "profanity-check"
    """`profanity-check` (offline, explicit toxicity), `judge:FOLDER` of `ifguide judge fit`, `detoxify`, or
    `classifier:PATH_OR_ID`; a hub id may end in `@REVISION`."""
    threshold: Annotated[Number, Field(gt=0, lt=1)] | Literal["calibrated"] = 0.5
    """The scorer's score from which a text counts as toxic; `calibrated`: from where it flags as many texts as
    Perspective does at 0.5. The odds of all scores are divided by those of this one, so that it becomes 0.5."""
    implicit: Text = ""
    """Second scorer, for implicit toxicity, such as `classifier:PATH_OR_ID` of ToxiGen-RoBERTa (`#LABEL` names its
    toxic class); empty: none."""
    lambada: Text = ""
    """File of passages (column `text`) whose last word the model predicts, as in LAMBADA; empty: not measured."""
    lambada_last: Literal["word", "token"] = "word"
    """What the model predicts of a passage: its last `word` with all its tokens, or its last `token`."""
    n_lambada: Count = 0
    """Use only this many passages; 0 uses all."""
    harness_tasks: tuple[Text, ...] = ()
    """Tasks of lm-evaluation-harness to run (`pip install 'ifguide[harness]'`); empty: none."""
    harness_folder: Text = ""
    """Folder of task files to use; empty: the harness's own tasks, which download their data."""
    harness_limit: Count = 0
    """Use only this many examples per task; 0 uses all."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Precision of the evaluated models' weights. Losses are float32 in any case."""
    batch_size: AtLeastOne = 256
    """Completions generated at once; of held-out texts and LAMBADA passages, a sixteenth as many are read."""

    @field_validator("harness_folder")
    @classmethod
    def _has_tasks(cls, folder: str, info: ValidationInfo) -> str:
        if folder and not info.data.get("harness_tasks"):
            raise ValueError("expected the tasks to run in evaluate.harness_tasks, got none")
        return folder


@table("compute")
class ComputeConfig:
    """Where and in what batches to compute. Results change by rounding at most, so no change here makes them stale."""

    device: Text = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    tokens_per_batch: AtLeastTwo = 4096
    """Tokens per pass while fitting and scoring, padding included; a large model's fit on a processor takes fewer."""
    threads: Count = 0
    """CPU threads for torch; 0 keeps torch's default."""
    device_map: Literal["", "auto", "balanced", "balanced_low_0", "sequential"] = ""
    """How Accelerate spreads a model over all GPUs, memory and disk, but for training; empty: one device."""
    max_memory: tuple[Text, ...] = ()
    """Limits for `device_map`, such as `0=70GiB` and `cpu=200GiB`; empty: all free memory."""


@table("")
class StudyConfig:
    """All settings of a study, as in `study.toml`."""

    description: Text = ""
    """A sentence for the study's front page."""
    model: ModelConfig = field(default_factory=ModelConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    queries: QueriesConfig = field(default_factory=QueriesConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    factors: FactorsConfig = field(default_factory=FactorsConfig)
    direction: DirectionConfig = field(default_factory=DirectionConfig)
    scores: ScoresConfig = field(default_factory=ScoresConfig)
    imported: dict[ColumnName, ImportedConfig] = field(default_factory=dict)
    """Token scores from files: tables `[imported.NAME]`."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    suppress: SuppressConfig = field(default_factory=SuppressConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    variants: dict[TableName, VariantConfig] = field(default_factory=dict)
    """More models to compare: tables `[variants.NAME]` with `selection` and the settings of `[suppress]`."""
    borrowed: dict[Name, BorrowedConfig] = field(default_factory=dict)
    """Selections of other studies: tables `[borrowed.NAME]`."""

    @field_validator("selection")
    @classmethod
    def _has_scores(cls, selection: SelectionConfig, info: ValidationInfo) -> SelectionConfig:
        scores, kind = info.data.get("scores"), selection.attribution
        computed = computed_kinds(scores) if scores else attributions()
        possible = [*(name for name in computed if KINDS[name].selects), *info.data.get("imported", ())]
        if kind not in possible:
            remedy = f"; set scores.{kind} to true, and what it is combined from" if kind in attributions() else ""
            raise ValueError(f"selection.attribution: expected one of {', '.join(possible)}, got {kind!r}{remedy}")
        return selection

    @field_validator("training")
    @classmethod
    def _suits_the_model(cls, training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
        if training.adapter and (model := info.data.get("model")) and model.mode != "finetune":
            raise ValueError("adapters extend a trained model; set model.mode to 'finetune', or training.adapter to ''")
        return training
