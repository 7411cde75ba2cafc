"""The settings of a study: frozen dataclasses, one a table of `study.toml`. Defaults live here and nowhere else."""

import re
from dataclasses import dataclass, field

from ifguide.config.attributions import attributions
from ifguide.errors import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def _require_seed(name: str, value: int) -> None:
    _require(0 <= value < 2**32, f"{name}: expected a seed from 0 to 4294967295, got {value}")


def _require_name(where: str, name: str) -> None:
    """A name that is safe as a folder; `ifguide.config.names.check_name` says the same of those that are typed."""
    _require(
        bool(re.fullmatch(r"(?!.*\.(partial|old)-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name)),
        f"{where}: expected a name of 1 to 64 letters, digits, '.', '_' or '-' that starts with a letter or digit, got"
        f" {name!r}",
    )


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Where the training documents come from."""

    path: str = ""
    """A file (.jsonl, .csv, .tsv, .parquet, .txt), a folder of .txt files, a saved `datasets` folder, or a hub id."""
    text_field: str = "text"
    """Column that holds the document's text."""
    id_field: str = ""
    """Column with a unique id; empty: documents are numbered."""
    source_field: str = ""
    """Column that names a document's source; empty: the file's name."""
    spans_field: str = ""
    """Column with known toxic character spans. Used to judge the result, never to compute it."""
    text_unit: str = "line"
    """For plain text: `line` (a document a line) or `file` (a document a file)."""
    skip_empty: bool = True
    """Leave out documents without text (they are counted); false makes them an error."""
    max_documents: int = 0
    """Take only this many documents, from the start; 0 takes all."""
    max_length: int = 0
    """Longest chunk in tokens; 0 takes the model's context length."""

    def __post_init__(self):
        _require_choice("corpus.text_unit", self.text_unit, ("line", "file"))
        _require(self.max_documents >= 0, f"corpus.max_documents: expected 0 or more, got {self.max_documents}")
        _require(self.max_length >= 0, f"corpus.max_length: expected 0 or more tokens, got {self.max_length}")
        _require(self.max_length != 1, "corpus.max_length: a chunk needs at least 2 tokens, got 1")


@dataclass(frozen=True, kw_only=True)
class QuerySetsConfig:
    """One more pair of query sets, read like the study's own."""

    toxic: str = ""
    """File of toxic queries."""
    safe: str = ""
    """File of safe queries."""

    def __post_init__(self):
        _require(
            bool(self.toxic and self.safe), "queries.extra: expected the files toxic and safe of each, got not both"
        )


@dataclass(frozen=True, kw_only=True)
class QueriesConfig:
    """The two sets of (prompt, completion) pairs that say what is toxic and what is safe."""

    toxic: str = ""
    """File of toxic queries."""
    safe: str = ""
    """File of safe queries."""
    prompt_field: str = "prompt"
    """Column with the prompt."""
    completion_field: str = "completion"
    """Column with the completion; RealToxicityPrompts' `continuation` is found by itself."""
    text_field: str = "text"
    """Column to split when a row has neither prompt nor completion."""
    split_share: float = 0.5
    """Plain texts are split here: this share of the words is the prompt."""
    toxic_min: float = 0.5
    """Scored rows become toxic queries when prompt and completion score at least this."""
    safe_max: float = 0.25
    """Scored rows become safe queries when prompt and completion score less than this."""
    max_queries: int = 0
    """Take at most this many of each set, from the start; 0 takes all."""
    extra: dict[str, QuerySetsConfig] = field(default_factory=dict)
    """More pairs of query sets, scored in the same pass over the corpus: tables `[queries.extra.NAME]` with `toxic` and
    `safe`."""

    def __post_init__(self):
        for name in self.extra:
            _require(
                bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name)),
                "queries.extra: expected a name of 1 to 64 letters, digits, '_' or '-' that starts with a letter or"
                f" digit, got {name!r}",
            )
        _require(
            0 < self.split_share < 1, f"queries.split_share: expected a share between 0 and 1, got {self.split_share}"
        )
        _require(0 <= self.safe_max <= 1, f"queries.safe_max: expected 0 to 1, got {self.safe_max}")
        _require(0 <= self.toxic_min <= 1, f"queries.toxic_min: expected 0 to 1, got {self.toxic_min}")
        _require(self.max_queries >= 0, f"queries.max_queries: expected 0 or more, got {self.max_queries}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model is studied and how it comes to be."""

    source: str = ""
    """A Hugging Face folder or hub id, or a folder with config.json and a tokenizer for `scratch`."""
    revision: str = ""
    """Hub revision of `source`; empty: the default branch."""
    mode: str = "finetune"
    """`scratch` (random start, trained on the corpus), `finetune` (trained on the corpus from `source`) or `asis`."""
    checkpoints: tuple[str, ...] = ()
    """For `asis`: folders or `id@revision` names to score at; empty: `source` alone."""
    dtype: str = "float32"
    """Precision of the weights while scoring: float32, bfloat16 or float16. Sums are float32 whatever this says."""
    modules: str = ""
    """Regular expression over module names to track; empty: every linear layer inside the blocks."""

    def __post_init__(self):
        _require_choice("model.mode", self.mode, ("scratch", "finetune", "asis"))
        _require_choice("model.dtype", self.dtype, ("float32", "bfloat16", "float16", "float64"))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained, alike for the base model and for every suppressed one."""

    epochs: float = 3.0
    """Passes over the corpus."""
    batch_size: int = 16
    """Rows in an optimiser step, before accumulation; several processes divide them."""
    gradient_accumulation: int = 1
    """Batches added up for one optimiser step."""
    learning_rate: float = 5e-5
    """Peak learning rate of AdamW."""
    warmup_steps: int = 10
    """Optimiser steps of linear warm-up."""
    schedule: str = "linear"
    """Learning-rate schedule after warm-up: linear, cosine or constant."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    adam_beta2: float = 0.999
    """Decay of AdamW's second moment; 0.95 learns faster in short runs from scratch."""
    max_grad_norm: float = 1.0
    """Gradients are clipped at this norm; 0 switches clipping off."""
    packing: bool = False
    """Put several documents in a row with an end-of-text token between them."""
    seed: int = 0
    """Seeds the random start, the order of the rows and dropout."""
    early_checkpoints: int = 4
    """How many log-spaced checkpoints to keep from the early part of training, for scoring."""
    checkpoint_steps: tuple[int, ...] = ()
    """Exact optimiser steps to keep instead of log-spaced ones."""
    include_last_checkpoint: bool = False
    """Score at the end of training too."""
    dtype: str = "float32"
    """float32, or bfloat16 for automatic mixed precision on a GPU or processor that has it."""
    save_steps: int = 500
    """Keep everything that is needed to go on after a kill every so many optimiser steps; 0: never."""
    adapter: str = ""
    """`lora` trains low-rank adapters (peft) instead of all weights, and merges them; empty: all weights."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_alpha: float = 32.0
    """Their scale: they count alpha / rank times."""

    def __post_init__(self):
        _require_seed("training.seed", self.seed)
        _require(self.epochs > 0, f"training.epochs: expected more than 0, got {self.epochs}")
        _require(self.batch_size >= 1, f"training.batch_size: expected 1 or more rows, got {self.batch_size}")
        _require(
            self.gradient_accumulation >= 1,
            f"training.gradient_accumulation: expected 1 or more, got {self.gradient_accumulation}",
        )
        _require(self.learning_rate > 0, f"training.learning_rate: expected more than 0, got {self.learning_rate}")
        _require(self.warmup_steps >= 0, f"training.warmup_steps: expected 0 or more, got {self.warmup_steps}")
        _require_choice("training.schedule", self.schedule, ("linear", "cosine", "constant", "constant_with_warmup"))
        _require(self.weight_decay >= 0, f"training.weight_decay: expected 0 or more, got {self.weight_decay}")
        _require(self.max_grad_norm >= 0, f"training.max_grad_norm: expected 0 or more, got {self.max_grad_norm}")
        _require(0 <= self.adam_beta2 < 1, f"training.adam_beta2: expected 0 <= adam_beta2 < 1, got {self.adam_beta2}")
        _require(
            self.early_checkpoints >= 0, f"training.early_checkpoints: expected 0 or more, got {self.early_checkpoints}"
        )
        _require(
            all(step >= 1 for step in self.checkpoint_steps),
            f"training.checkpoint_steps: expected steps from 1 on, got {self.checkpoint_steps}",
        )
        _require_choice("training.dtype", self.dtype, ("float32", "bfloat16"))
        _require(self.save_steps >= 0, f"training.save_steps: expected 0 or more, got {self.save_steps}")
        _require_choice("training.adapter", self.adapter, ("", "lora"))
        _require(self.lora_rank >= 1, f"training.lora_rank: expected 1 or more, got {self.lora_rank}")
        _require(self.lora_alpha > 0, f"training.lora_alpha: expected more than 0, got {self.lora_alpha}")


@dataclass(frozen=True, kw_only=True)
class FactorsConfig:
    """How EK-FAC's curvature factors are fitted."""

    strategy: str = "ekfac"
    """`ekfac`, or `identity` (no curvature, for ablation)."""
    labels: str = "sampled"
    """Labels of the Fisher matrix: `sampled` from the model (the true Fisher) or `true` (the empirical one)."""
    max_tokens: int = 0
    """Fit on at most about this many corpus tokens, whole documents drawn at random; 0 takes all."""
    products: str = "float32"
    """Precision in which the eigenvalues' gradients are multiplied: `float32`, `bfloat16`, or `auto` (bfloat16 where
    the device is faster at it). Sums and covariances are float32."""
    seed: int = 0
    """Seeds the sampled labels and the draw of documents."""

    def __post_init__(self):
        _require_seed("factors.seed", self.seed)
        _require_choice("factors.products", self.products, ("auto", "float32", "bfloat16"))
        _require_choice("factors.strategy", self.strategy, ("ekfac", "identity"))
        _require_choice("factors.labels", self.labels, ("sampled", "true"))
        _require(self.max_tokens >= 0, f"factors.max_tokens: expected 0 or more, got {self.max_tokens}")


@dataclass(frozen=True, kw_only=True)
class DirectionConfig:
    """How the query sets become one direction v in parameter space."""

    damping: float = 10.0
    """Damping as a multiple of each module's mean eigenvalue."""
    weighting: str = "token-mean"
    """A query counts as the mean (`token-mean`) or the sum (`token-sum`) over its completion tokens."""
    differential: bool = True
    """Toxic minus safe gradient; false uses the toxic queries alone (standard influence)."""
    objective: str = "loss"
    """`loss` (-log p) or `margin` (-log p/(1-p), which keeps its gradient when the model is sure)."""

    def __post_init__(self):
        _require(self.damping > 0, f"direction.damping: expected more than 0, got {self.damping}")
        _require_choice("direction.weighting", self.weighting, ("token-mean", "token-sum"))
        _require_choice("direction.objective", self.objective, ("loss", "margin"))


@dataclass(frozen=True, kw_only=True)
class ScoresConfig:
    """How every corpus token gets its score."""

    derivative: str = "jvp"
    """`auto` (the fastest way that agrees with the exact derivative on a sample), `central` (central differences) or
    `jvp` (exact, forward-mode)."""
    position: bool = True
    """Also compute `position` attribution, for comparison."""
    average: str = "mean"
    """How the checkpoints' scores, each divided by its standard deviation, are put together: `mean` or `median`."""
    pooling: float = 0.0
    """Add this many times the mean score of all places of the same vocabulary entry; 0: each place by itself."""

    def __post_init__(self):
        _require_choice("scores.derivative", self.derivative, ("auto", "jvp", "central"))
        _require_choice("scores.average", self.average, ("mean", "median"))
        _require(self.pooling >= 0, f"scores.pooling: expected 0 or more, got {self.pooling}")


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Algorithm 1: which tokens are selected."""

    attribution: str = "own_loss"
    """Scores to select by: `own_loss` or `position`."""
    quantile: float = 0.99
    """The threshold is this quantile of all valid scores; tokens strictly above it are hits."""
    window: int = 0
    """Tokens taken on each side of a hit, inside its document."""
    max_tokens: int = 0
    """Budget in tokens; documents are taken by rank until it is used up. 0: no budget."""
    controls: tuple[str, ...] = ("random", "oracle")
    """Masks built beside the default one: `random` (same count), `oracle` (the known spans, if the corpus has them)."""
    seed: int = 0
    """Seeds the random control."""

    def __post_init__(self):
        _require_seed("selection.seed", self.seed)
        _require_choice("selection.attribution", self.attribution, attributions())
        _require(0 <= self.quantile < 1, f"selection.quantile: expected 0 <= quantile < 1, got {self.quantile}")
        _require(self.window >= 0, f"selection.window: expected 0 or more tokens, got {self.window}")
        _require(self.max_tokens >= 0, f"selection.max_tokens: expected 0 or more, got {self.max_tokens}")
        for control in self.controls:
            _require_choice("selection.controls", control, ("random", "oracle"))


@dataclass(frozen=True, kw_only=True)
class SuppressConfig:
    """The penalised objective (Eq. 9), and other ways to train without the selected tokens."""

    method: str = "penalise"
    """`penalise` (Eq. 9), `unlikelihood` (λ·-log(1-p)), `mask` (no loss on selected tokens) or `drop` (no loss on
    documents with a selected token)."""
    penalty: float = 1.0
    """λ: weight of a selected token's cross-entropy, taken with a minus sign."""
    max_penalty: float = 0.0
    """Cross-entropy of a selected token counts up to this many nats; 0: no clamp, as in the paper."""
    warmup_share: float = 0.0
    """The penalty comes gradually over this share of the steps: `penalise` begins as plain training, `unlikelihood`
    with λ = 0; 0: it is there from the start."""
    weighting: str = "even"
    """`even` (a token is selected or not), or `score` (tokens near the threshold are selected in part, by their score).
    """

    def __post_init__(self):
        _require_choice("suppress.method", self.method, ("penalise", "unlikelihood", "mask", "drop"))
        _require_choice("suppress.weighting", self.weighting, ("even", "score"))
        _require(0 <= self.warmup_share <= 1, f"suppress.warmup_share: expected 0 to 1, got {self.warmup_share}")
        _require(
            self.method != "drop" or self.weighting == "even",
            "suppress.weighting: documents are dropped whole; use weighting 'even' with method 'drop'",
        )
        _require(self.penalty >= 0, f"suppress.penalty: expected 0 or more, got {self.penalty}")
        _require(self.max_penalty >= 0, f"suppress.max_penalty: expected 0 or more nats, got {self.max_penalty}")


@dataclass(frozen=True, kw_only=True)
class BaselinesConfig:
    """The other methods that `ifguide compare` measures against."""

    scorer: str = "profanity-check"
    """Classifier of the baselines that have one; named as in `evaluate.scorer`."""
    document_min: float = 0.5
    """A document is called toxic from this score on."""
    epochs: float = 2.0
    """Passes over the queries of the two models whose losses are compared."""
    learning_rate: float = 0.0
    """Their peak learning rate, and that of `dpo`; 0 takes a tenth of `training.learning_rate`."""
    dpo_beta: float = 0.1
    """How strongly direct preference optimisation holds on to the base model."""
    dpo_epochs: float = 1.0
    """Its passes over the queries."""
    steer_strength: float = 10.0
    """How much likelier reward-augmented decoding makes a token after which the text is not toxic at all, in nats."""
    steer_candidates: int = 20
    """Tokens it tries at each step."""

    def __post_init__(self):
        _require(0 < self.document_min <= 1, f"baselines.document_min: expected 0 to 1, got {self.document_min}")
        for name in ("epochs", "dpo_beta", "dpo_epochs", "steer_strength"):
            _require(getattr(self, name) > 0, f"baselines.{name}: expected more than 0, got {getattr(self, name)}")
        _require(
            self.steer_candidates >= 2, f"baselines.steer_candidates: expected 2 or more, got {self.steer_candidates}"
        )
        _require(self.learning_rate >= 0, f"baselines.learning_rate: expected 0 or more, got {self.learning_rate}")


@dataclass(frozen=True, kw_only=True)
class VariantConfig(SuppressConfig):
    """One more model: a selection, and how to train without it. A table `[variants.NAME]`; nothing is taken from
    `[suppress]`."""

    selection: str = "default"
    """The selection it is trained without."""


@dataclass(frozen=True, kw_only=True)
class BorrowedConfig:
    """A selection carried over from another study of the same texts (`ifguide borrow`). A table `[borrowed.NAME]`."""

    study: str = ""
    """The other study, beside this one in the cache."""
    selection: str = "default"
    """Which of its selections."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How models are compared."""

    prompts: str = ""
    """File of prompts to complete; empty: the prompts of the toxic queries."""
    prompt_field: str = "prompt"
    """Column with the prompt."""
    group_field: str = ""
    """Column with the prompt's group, for numbers by group; empty: `group`, or what AttaQ's and BOLD's files say."""
    n_prompts: int = 0
    """Take only this many prompts; 0 takes all."""
    heldout: str = ""
    """File of benign held-out text for perplexity; empty: no perplexity is reported."""
    text_field: str = "text"
    """Column with the held-out text."""
    n_heldout: int = 0
    """Take only this many held-out texts; 0 takes all."""
    n_samples: int = 25
    """Completions a prompt (k)."""
    max_new_tokens: int = 20
    """Length of a completion in tokens."""
    top_p: float = 0.9
    """Nucleus sampling keeps the smallest set of tokens with this much probability."""
    temperature: float = 1.0
    """Sampling temperature."""
    seed: int = 0
    """Seeds every completion by its prompt and sample number."""
    scorer: str = "profanity-check"
    """`profanity-check` (offline, explicit toxicity), `detoxify`, or `classifier:PATH_OR_ID`."""
    implicit: str = ""
    """A second scorer for implicit toxicity, such as `classifier:PATH_OR_ID` of ToxiGen-RoBERTa (`#LABEL` names its
    toxic class); empty: none."""
    lambada: str = ""
    """File of passages (the column `text`) whose last word the model has to guess; empty: not measured."""
    n_lambada: int = 0
    """Take only this many passages; 0 takes all."""
    harness_tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness to run (`pip install 'ifguide[harness]'`); empty: none."""
    harness_folder: str = ""
    """Folder of task files to take them from; empty: the harness's own tasks, which fetch their data."""
    harness_limit: int = 0
    """Take only this many examples a task; 0 takes all."""
    batch_size: int = 256
    """Completions generated at once."""

    def __post_init__(self):
        _require_seed("evaluate.seed", self.seed)
        _require(self.n_prompts >= 0, f"evaluate.n_prompts: expected 0 or more, got {self.n_prompts}")
        _require(self.n_heldout >= 0, f"evaluate.n_heldout: expected 0 or more, got {self.n_heldout}")
        _require(self.n_samples >= 1, f"evaluate.n_samples: expected 1 or more, got {self.n_samples}")
        _require(self.max_new_tokens >= 1, f"evaluate.max_new_tokens: expected 1 or more, got {self.max_new_tokens}")
        _require(0 < self.top_p <= 1, f"evaluate.top_p: expected 0 < top_p <= 1, got {self.top_p}")
        _require(self.temperature > 0, f"evaluate.temperature: expected more than 0, got {self.temperature}")
        _require(self.n_lambada >= 0, f"evaluate.n_lambada: expected 0 or more, got {self.n_lambada}")
        _require(self.harness_limit >= 0, f"evaluate.harness_limit: expected 0 or more, got {self.harness_limit}")
        _require(
            bool(self.harness_tasks) or not self.harness_folder,
            "evaluate.harness_folder: expected tasks of it in evaluate.harness_tasks, got none",
        )
        _require(self.batch_size >= 1, f"evaluate.batch_size: expected 1 or more, got {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Where and in which portions the work is done. Changes no result beyond rounding, so it makes nothing stale."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    tokens_per_batch: int = 4096
    """Padded tokens in one forward pass while fitting and scoring."""
    threads: int = 0
    """CPU threads for torch; 0 leaves torch's own choice."""
    device_map: str = ""
    """For fitting and scoring a model that one device cannot hold: `auto`, `balanced`, `balanced_low_0` or `sequential`
    (accelerate's words) spread it over all GPUs, memory and disk; empty: one device."""
    max_memory: tuple[str, ...] = ()
    """With `device_map`, limits such as `0=70GiB` and `cpu=200GiB`; empty: whatever is free."""

    def __post_init__(self):
        _require(
            self.tokens_per_batch >= 2, f"compute.tokens_per_batch: expected 2 or more, got {self.tokens_per_batch}"
        )
        _require(self.threads >= 0, f"compute.threads: expected 0 or more, got {self.threads}")
        _require_choice("compute.device_map", self.device_map, ("", "auto", "balanced", "balanced_low_0", "sequential"))


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """All settings of a study, as `study.toml` holds them."""

    description: str = ""
    """A sentence for the study's front page."""
    model: ModelConfig = field(default_factory=ModelConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    queries: QueriesConfig = field(default_factory=QueriesConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    factors: FactorsConfig = field(default_factory=FactorsConfig)
    direction: DirectionConfig = field(default_factory=DirectionConfig)
    scores: ScoresConfig = field(default_factory=ScoresConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    suppress: SuppressConfig = field(default_factory=SuppressConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    variants: dict[str, VariantConfig] = field(default_factory=dict)
    """More models to compare: tables `[variants.NAME]` with `selection` and the settings of `[suppress]`."""
    borrowed: dict[str, BorrowedConfig] = field(default_factory=dict)
    """Selections of other studies, carried over: tables `[borrowed.NAME]`."""

    def __post_init__(self):
        _require(
            not self.training.adapter or self.model.mode == "finetune",
            "training.adapter: adapters are added to a trained model; set model.mode to finetune, or leave the"
            " adapter out",
        )
        for name in self.variants:
            _require(
                bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name)),
                "variants: expected a name of 1 to 64 letters, digits, '_' or '-' that starts with a letter or digit,"
                f" got {name!r}",
            )
        for name, variant in self.variants.items():
            _require_name(f"variants.{name}.selection", variant.selection)
        for name, lent in self.borrowed.items():
            _require_name("borrowed", name)
            _require_name(f"borrowed.{name}.study", lent.study)
            _require_name(f"borrowed.{name}.selection", lent.selection)
