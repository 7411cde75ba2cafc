"""Our engine against kronfluence, bergson, a training step and plain forward passes: same model, tokens and process.

    python -m benchmarks.engine [--shape demo|pythia-70m|pythia-160m|neox-512|llama-384] [--only TEXT ...] [--threads 2]
        [--device cpu] [--study demo]

A peer that is not installed is left out. The model has random weights (speed does not depend on them). Times are
marginal: the long run minus the short run, over the difference in tokens, so that start-up is left out on both sides.
Exactness is that of a study's trained model, direction and corpus (`--study`), against the derivative in float64.
"""

import argparse
import contextlib
import copy
import functools
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.bergson_scores import scorer_of
from ifguide.data.queries import encode_queries
from ifguide.influence import ekfac
from ifguide.influence.attribution import position_scores
from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.central import CentralDifference, PairedDifference
from ifguide.influence.derivative import Derivative, choose_derivative
from ifguide.influence.direction import differential_direction, query_gradient
from ifguide.influence.line import own_loss_scores
from ifguide.influence.losses import SplitModel
from ifguide.models.layers import layer_shape
from ifguide.models.loading import has_fast_bfloat16, load_model, load_tokenizer, tracked_modules
from ifguide.storage import artifacts
from ifguide.study.lineage import Unit
from ifguide.study.reading import Study

SHAPES = {
    "tiny": {"hidden": 64, "layers": 2, "vocab": 512, "length": 32, "documents": 8, "batch": 2},
    "demo": {"hidden": 256, "layers": 4, "vocab": 8192, "length": 128, "documents": 64, "batch": 8},
    "pythia-70m": {"hidden": 512, "layers": 6, "vocab": 50304, "length": 256, "documents": 24, "batch": 4},
    "pythia-160m": {"hidden": 768, "layers": 12, "vocab": 50304, "length": 1024, "documents": 256, "batch": 16},
    "neox-512": {"hidden": 512, "layers": 6, "vocab": 50304, "length": 512, "documents": 16, "batch": 4},
    "llama-384": {"hidden": 384, "layers": 6, "vocab": 32000, "length": 512, "documents": 16, "batch": 4},
}
"""Shapes to measure: the first is for tests, `pythia-160m` for a GPU, and the last two are held against bergson."""
FORWARD, STEP = "forward pass with its loss", "training step (forward, backward, AdamW)"
EXACT, POSITION = "own-loss, exact (jvp)", "position"
OWN, OWN_NARROW = "own-loss (central differences)", "own-loss, bfloat16 head"
FIT, FIT_NARROW = "EK-FAC fit", "EK-FAC fit, bfloat16 products"
FIRST = "first"
PEER, PEER_FIT = "kronfluence per-token scores", "kronfluence EK-FAC fit"
BERGSON = "bergson, exact per-token scores"
PAIRED, PEER_NARROW = "own-loss, both branches in one pass", "kronfluence per-token scores, bfloat16"
RATIOS = (
    ("own-loss to kronfluence per-token scores", OWN, PEER, {"cpu": ">= 1.5", "cuda": ">= 3 by one of these"}),
    ("own-loss, bfloat16 head, to the same", OWN_NARROW, PEER, {"cpu": ">= 1.5", "cuda": ">= 3 by one of these"}),
    ("own-loss, both branches in one pass, to the same", PAIRED, PEER, ">= 3 by one of these"),
    ("own-loss, both branches in one pass, to kronfluence in bfloat16", PAIRED, PEER_NARROW, ">= 1.5"),
    ("own-loss to bergson", OWN, BERGSON, {"cpu": ">= 4, Llama >= 2.4", "cuda": ">= 3"}),
    ("own-loss, bfloat16 head, to bergson", OWN_NARROW, BERGSON, {"cpu": ">= 4, Llama >= 2.4", "cuda": ">= 3"}),
    ("own-loss, exact (jvp), to bergson", EXACT, BERGSON, "–"),
    ("own-loss to a training step", OWN, STEP, ">= 1.5"),
    ("EK-FAC fit to kronfluence's", FIT, PEER_FIT, ">= 2"),
    ("EK-FAC fit, bfloat16 products, to kronfluence's", FIT_NARROW, PEER_FIT, ">= 2"),
    ("own-loss to own-loss, exact (jvp)", OWN, EXACT, "–"),
    ("own-loss, exact (jvp), to kronfluence per-token scores", EXACT, PEER, "–"),
    ("position to kronfluence per-token scores", POSITION, PEER, "–"),
)
"""What over what, and the bar."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="demo")
    parser.add_argument("--documents", type=int, help="instead of the shape's own number")
    parser.add_argument("--only", nargs="+", default=[], help="only what has one of these texts in its name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-speed", action="store_true", help="only the tables of a study")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--study", help="a study with a direction, for the exactness table")
    parser.add_argument("--exact-documents", type=int, default=200, help="documents of that study to compare on")
    parser.add_argument("--low-precision", action="store_true", help="also score with the whole model in bfloat16")
    options = parser.parse_args()
    shape = SHAPES[options.shape] | ({"documents": options.documents} if options.documents else {})
    options = argparse.Namespace(**(vars(options) | shape))
    torch.set_num_threads(options.threads)
    if not options.no_speed:
        print_speed(options)
    if options.study:
        print_exactness(options)


def make_model(options, attention: str):
    """A model of the asked shape: GPT-NeoX, or for a shape named so, Llama."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama" if getattr(options, "shape", "").startswith("llama") else "gpt_neox",
        vocab_size=options.vocab,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 64),
        intermediate_size=4 * options.hidden,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    return (
        AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
        .to(options.device)
        .eval()
        .requires_grad_(False)
    )


def make_documents(options, n: int) -> list[np.ndarray]:
    """Random documents of one length, so that nothing is padded on either side."""
    return list(np.random.default_rng(0).integers(1, options.vocab, size=(n, options.length)))


def as_batches(options, documents) -> list:
    """The documents in batches on the device."""
    sequences = [Sequence(ids, np.arange(len(ids))) for ids in documents]
    return [batch.to(options.device) for batch in make_batches(sequences, options.batch * options.length)]


def random_direction(modules) -> dict[str, torch.Tensor]:
    """Some direction; its values do not change the speed."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: (torch.randn(layer_shape(m), generator=generator) * 1e-3).to(m.weight.device)
        for name, m in modules.items()
    }


def measure(options, contenders: dict[str, Callable]) -> dict[str, float]:
    """Marginal tokens a second of each contender: the extra tokens of a long run over its extra seconds.

    Contenders take turns, so that a slow minute hits all of them alike, and each one's fastest short and fastest long
    run count.
    """
    short, long = make_documents(options, options.documents // 4), make_documents(options, options.documents)
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in contenders}
    for run in contenders.values():
        run(short)  # warm-up
    for _ in range(options.repeats):
        for name, run in contenders.items():
            for documents, taken in zip((short, long), seconds[name], strict=True):
                started = time.perf_counter()
                run(documents)
                if options.device != "cpu":
                    torch.cuda.synchronize()
                taken.append(time.perf_counter() - started)
    more_tokens = (len(long) - len(short)) * options.length
    return {name: more_tokens / (min(at_length) - min(at_short)) for name, (at_short, at_length) in seconds.items()}


@contextlib.contextmanager
def known_eigenvectors():
    """Inside the block the factors' eigendecompositions are remembered by size: on both sides they are the same LAPACK
    call, take the same time however many tokens there are, and are left out of the rates."""
    by_side: dict[int, torch.Tensor] = {}
    find = ekfac.eigenvectors

    def remember(matrices: torch.Tensor, names) -> torch.Tensor:
        if (side := matrices.shape[-1]) not in by_side:
            by_side[side] = find(matrices[:1], names[:1])
        return by_side[side].to(matrices).expand_as(matrices)

    with mock.patch.object(ekfac, "eigenvectors", remember):
        yield


def each(options, function) -> Callable:
    """A contender that calls a function on every batch."""

    def run(documents):
        for batch in as_batches(options, documents):
            function(batch)

    return run


def print_speed(options) -> None:
    """Tokens a second of each, and the ratios the bars name."""
    fused, eager = make_model(options, "sdpa"), make_model(options, "eager")
    modules, eager_modules = tracked_modules(fused), tracked_modules(eager)
    direction = random_direction(modules)
    split, eager_split = SplitModel(fused), SplitModel(eager)
    sample = as_batches(options, make_documents(options, options.batch))
    step = choose_derivative(fused, modules, direction, sample, setting="central").epsilon
    central = CentralDifference(split, modules, direction, step)
    narrow = CentralDifference(split, modules, direction, step, torch.bfloat16)

    @torch.no_grad()
    def forward(documents):
        for batch in as_batches(options, documents):
            logits = fused(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits[
                :, :-1
            ]
            F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")

    trained = copy.deepcopy(fused).train().requires_grad_(True)
    optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-5, fused=True)

    def train(documents):
        for batch in as_batches(options, documents):
            logits = trained(input_ids=batch.input_ids, use_cache=False).logits[:, :-1]
            F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).backward()
            optimiser.step()
            optimiser.zero_grad()

    def fit(products):
        def run(documents):
            batches = as_batches(options, documents)
            ekfac.fit_factors(split, modules, lambda: batches, labels="true", products=products)

        return run

    contenders = {
        FORWARD: forward,
        STEP: train,
        OWN: each(options, central.scores),
        OWN_NARROW: each(options, narrow.scores),
        EXACT: each(options, lambda batch: own_loss_scores(eager_split, eager_modules, direction, batch)),
        POSITION: each(options, lambda batch: position_scores(split, modules, [direction], batch)),
        FIT: fit(None),
        FIT_NARROW: fit(torch.bfloat16),
    }
    if options.device != "cpu":
        contenders[PAIRED] = each(options, PairedDifference(split, modules, direction, step).scores)
    if find_spec("bergson"):
        contenders[BERGSON] = each(options, peer_scores := scorer_of(eager, direction, eager_modules))
    installed = find_spec("kronfluence") and any(_asked(options, name) for name in (PEER, PEER_FIT))
    with KronfluencePeer(options) if installed else contextlib.nullcontext() as peer, known_eigenvectors():
        if peer:
            contenders |= {PEER: peer.score, PEER_FIT: peer.fit}
            if options.device != "cpu":
                contenders[PEER_NARROW] = functools.partial(peer.score, dtype=torch.bfloat16)
        rates = measure(options, {name: run for name, run in contenders.items() if _asked(options, name)})
    n = sum(p.numel() for p in fused.parameters())
    print(
        f"\n{type(fused).__name__}, {n:,} parameters, {options.layers} layers, hidden {options.hidden}, vocabulary"
        f" {options.vocab:,}; {options.documents} documents of {options.length} tokens, batches of {options.batch};"
        f" float32, {describe_device(options)}, torch {torch.__version__}, {_version('kronfluence')},"
        f" {_version('bergson')}; fastest of {options.repeats} rounds\n"
    )
    print("| what | tokens/s |\n|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.0f} |")
    print("\n| ratio | measured | bar |\n|---|---|---|")
    for title, over, under, bar in RATIOS:
        if over in rates and under in rates:
            bar = bar.get(options.device, bar["cuda"]) if isinstance(bar, dict) else bar
            print(f"| {title} | {rates[over] / rates[under]:.2f} | {bar} |")
    if FORWARD in rates and OWN in rates:
        print(f"| time of own-loss to two forward passes | {rates[FORWARD] / rates[OWN] / 2:.2f} | <= 1.10 |")
    if BERGSON in rates:
        batch, theirs = sample[0], peer_scores(sample[0]).double().flatten()
        ways = {OWN: central.scores(batch), OWN_NARROW: narrow.scores(batch)}
        ways[EXACT] = own_loss_scores(eager_split, eager_modules, direction, batch)
        for title, (scores, _) in ways.items():
            both = torch.stack([theirs, scores.double().flatten()])
            print(f"| correlation with bergson, {title} | {torch.corrcoef(both)[0, 1]:.9f} | >= .999999 |")


def _asked(options, name: str) -> bool:
    return not options.only or any(text in name for text in options.only)


def _version(package: str) -> str:
    return f"{package} {metadata.version(package) if find_spec(package) else 'not installed'}"


def describe_device(options) -> str:
    """The processor or card, for the record."""
    if options.device != "cpu":
        return torch.cuda.get_device_name(options.device)
    return (
        f"cpu ({torch.backends.cpu.get_cpu_capability()}, bfloat16 products"
        f" {'fast' if has_fast_bfloat16(torch.device('cpu')) else 'slow'}), {options.threads} threads"
    )


class KronfluencePeer:
    """kronfluence on the same model: its EK-FAC fit and its per-token scores with aggregated queries."""

    def __init__(self, options):
        from kronfluence.analyzer import Analyzer, prepare_model
        from kronfluence.arguments import FactorArguments
        from kronfluence.task import Task

        model = make_model(options, "sdpa").requires_grad_(True)
        names = list(tracked_modules(model))

        class LanguageModelling(Task):
            def losses(self, batch, model):
                logits = model(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
                ).logits[:, :-1]
                return F.cross_entropy(logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="sum")

            def compute_train_loss(self, batch, model, sample=False):
                return self.losses(batch, model)

            def compute_measurement(self, batch, model):
                return self.losses(batch, model)

            def get_influence_tracked_modules(self):
                return names

            def get_attention_mask(self, batch):
                return batch["attention_mask"]

        self._arguments = FactorArguments(strategy="ekfac", use_empirical_fisher=True)
        self._options, self._folder, self._turn = options, tempfile.mkdtemp(), 0
        task = LanguageModelling()
        self._analyzer = Analyzer(
            analysis_name="peer",
            model=prepare_model(model, task),
            task=task,
            cpu=options.device == "cpu",
            disable_tqdm=True,
            output_dir=self._folder,
        )

    def __enter__(self):
        rows = self._rows(make_documents(self._options, self._options.documents // 4))
        self._analyzer.fit_all_factors(
            FIRST, rows, per_device_batch_size=self._options.batch, factor_args=self._arguments
        )
        return self

    def __exit__(self, *_):
        shutil.rmtree(self._folder, ignore_errors=True)

    def _rows(self, documents) -> list[dict]:
        return [
            {"input_ids": torch.as_tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.int64)}
            for ids in documents
        ]

    def fit(self, documents) -> None:
        """Fit covariances and eigenvalues; the eigenvectors are those found when the peer was made."""
        self._turn += 1
        name, rows = f"factors{self._turn}", self._rows(documents)
        options = {"per_device_batch_size": self._options.batch, "factor_args": self._arguments}
        self._analyzer.fit_covariance_matrices(name, rows, **options)
        self._analyzer.fit_lambda_matrices(name, rows, load_from_factors_name=FIRST, **options)

    def score(self, documents, dtype: torch.dtype | None = None) -> None:
        """Score every token of the documents against a few aggregated queries; with a dtype, under autocast to it."""
        from kronfluence.arguments import ScoreArguments

        self._turn += 1
        arguments = ScoreArguments(compute_per_token_scores=True, aggregate_query_gradients=True, amp_dtype=dtype)
        self._analyzer.compute_pairwise_scores(
            f"scores{self._turn}",
            factors_name=FIRST,
            query_dataset=self._rows(documents[:2]),
            train_dataset=self._rows(documents),
            per_device_query_batch_size=2,
            per_device_train_batch_size=self._options.batch,
            score_args=arguments,
            overwrite_output_dir=True,
        )


def print_exactness(options) -> None:
    """Each way to take the derivative against forward mode in float64, and the direction from our factors against the
    float64 one, with a study's own trained model, queries and corpus."""
    from scipy.stats import spearmanr

    study = Study.open(options.study)
    name = study.checkpoint_names()[-1]
    entry = next(c for c in study.models()["checkpoints"] if c["name"] == name)
    load = functools.partial(load_model, entry["source"], device=options.device)
    model, double = load(attention="eager"), load(attention="eager", dtype="float64")
    modules, double_modules = tracked_modules(model), tracked_modules(double)
    direction = artifacts.load_tensors(
        study.folder(Unit("direction")) / name / "direction.safetensors", device=options.device
    )
    corpus = study.corpus()
    offsets = np.asarray(corpus.offsets)[: options.exact_documents + 1]
    documents = [np.asarray(corpus.token_ids[a:b]) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    batches = as_batches(options, documents)

    def collect(function) -> np.ndarray:
        return np.concatenate([function(b)[0][b.targets != -100].double().cpu().numpy() for b in batches])

    exact = collect(lambda b: own_loss_scores(double, double_modules, {k: v.double() for k, v in direction.items()}, b))
    best = choose_derivative(model, modules, direction, batches[:4], setting="central")
    ways = {
        "jvp, float32": Derivative("jvp"),
        "central, float32": best,
        "central, bfloat16 head": Derivative("central", "bfloat16", best.epsilon),
        "paired, bfloat16 differences": Derivative("paired", "bfloat16", best.epsilon),
    }
    print(
        f"\nExactness: study {study.name}, {name}, its own direction, {len(exact):,} corpus tokens; step"
        f" {best.epsilon:.3g}\n"
    )
    print("| way | Pearson | Spearman | overlap of the top 1% |\n|---|---|---|---|")
    scored = {title: collect(way.scorer(model, modules, direction)) for title, way in ways.items()}
    if options.low_precision:
        low = load(attention="eager", dtype="bfloat16")
        scored["jvp, bfloat16 model"] = collect(lambda b: own_loss_scores(low, tracked_modules(low), direction, b))
    for title, values in scored.items():
        k = max(1, len(exact) // 100)
        overlap = len(np.intersect1d(np.argsort(exact)[-k:], np.argsort(values)[-k:])) / k
        print(
            f"| {title} | {np.corrcoef(exact, values)[0, 1]:.7f} | {spearmanr(exact, values)[0]:.7f} | {overlap:.3f} |"
        )
    _print_direction(study, model, modules, double, double_modules, batches)


def _print_direction(study, model, modules, double, double_modules, batches) -> None:
    layout = artifacts.read_json(study.folder(Unit("corpus")) / "layout.json")
    tokenizer = load_tokenizer(study.resolve(study.config.model.source))
    queries = {
        kind: encode_queries(study.queries(kind), tokenizer, layout["max_length"], bos_id=layout["bos"])
        for kind in ("toxic", "safe")
    }

    def direction(model, modules, products=None) -> np.ndarray:
        toxic, safe = (query_gradient(model, modules, queries[kind]) for kind in ("toxic", "safe"))
        factors = ekfac.fit_factors(model, modules, lambda: batches, labels="true", products=products)
        v = differential_direction(toxic, safe, factors, study.config.direction.damping)
        return np.concatenate([tensor.double().cpu().numpy().ravel() for tensor in v.values()])

    exact = direction(double, double_modules)
    print(
        f"\nPreconditioned direction, {sum(map(len, queries.values()))} queries, factors from"
        f" {sum(b.n_tokens for b in batches):,} tokens, damping {study.config.direction.damping}\n"
    )
    print("| factors | cosine with float64 | bar |\n|---|---|---|")
    for title, products in (("float32", None), ("bfloat16 products", torch.bfloat16)):
        v = direction(model, modules, products)
        print(f"| {title} | {v @ exact / np.linalg.norm(v) / np.linalg.norm(exact):.7f} | >= .999 |")


if __name__ == "__main__":
    main()
