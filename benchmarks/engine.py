"""Our engine against kronfluence, a training step and plain forward passes: same model, same tokens, same process.

    python -m benchmarks.engine [--hidden 256 --layers 4 --vocab 8192 --length 128 --documents 96 --threads 2] [--device cpu]

The model has Pythia's shape and random weights (speed does not depend on them). Times are marginal: the long run minus the
short run, over the difference in tokens, so that start-up is left out on both sides. Exactness is measured on a study's trained
model, direction and corpus (`--study demo`), against the same derivative in float64.
"""

import argparse
import copy
import shutil
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F

from ifguide import artifacts
from ifguide.influence.attribution import own_loss_scores, position_scores
from ifguide.influence.batches import Sequence, make_batches
from ifguide.influence.central import CentralDifference, choose_step
from ifguide.influence.ekfac import fit_factors
from ifguide.influence.layers import layer_shape
from ifguide.influence.losses import SplitModel
from ifguide.models import load_model, tracked_modules
from ifguide.study import Study, Unit


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("hidden", 256),
        ("layers", 4),
        ("vocab", 8192),
        ("length", 128),
        ("documents", 96),
        ("batch", 8),
        ("threads", 2),
        ("repeats", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--study", help="a study with a direction, for the exactness table")
    parser.add_argument("--exact-documents", type=int, default=200, help="documents of that study to compare on")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_speed(options)
    if options.study:
        print_exactness(options)


def make_model(options, attention: str):
    """A GPT-NeoX model of the asked shape."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "gpt_neox", vocab_size=options.vocab, hidden_size=options.hidden, num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 64), intermediate_size=4 * options.hidden, max_position_embeddings=2048,
    )  # fmt: skip
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


def marginal(options, run) -> float:
    """Tokens a second of `run(documents)`: median over repeats of (long - short) / extra tokens."""
    short, long = make_documents(options, options.documents // 4), make_documents(options, options.documents)
    run(short)  # warm-up
    rates = []
    for _ in range(options.repeats):
        seconds = []
        for documents in (short, long):
            started = time.perf_counter()
            run(documents)
            if options.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        rates.append((len(long) - len(short)) * options.length / (seconds[1] - seconds[0]))
    return float(np.median(rates))


def print_speed(options) -> None:
    """Tokens a second of each, and the ratios the bars name."""
    fused, eager = make_model(options, "sdpa"), make_model(options, "eager")
    modules, eager_modules = tracked_modules(fused), tracked_modules(eager)
    direction = random_direction(modules)
    split, eager_split = SplitModel(fused), SplitModel(eager)
    central = CentralDifference(fused, modules, direction, 1e-3)

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

    def each(function):
        return lambda documents: [function(batch) for batch in as_batches(options, documents)]

    ours = {
        "forward pass with its loss": forward,
        "training step (forward, backward, AdamW)": train,
        "own-loss, central differences": each(central.scores),
        "own-loss, exact (jvp)": each(lambda batch: own_loss_scores(eager_split, eager_modules, direction, batch)),
        "position": each(lambda batch: position_scores(split, modules, direction, batch)),
        "EK-FAC fit": lambda documents: fit_factors(
            fused, modules, lambda: as_batches(options, documents), labels="true"
        ),
    }
    rates = {name: marginal(options, run) for name, run in ours.items()}
    with KronfluencePeer(options) as peer:
        rates["kronfluence per-token scores"] = marginal(options, peer.score)
        rates["kronfluence EK-FAC fit"] = marginal(options, peer.fit)
    n = sum(p.numel() for p in fused.parameters())
    print(
        f"\nGPT-NeoX, {n:,} parameters, {options.layers} layers, hidden {options.hidden}, vocabulary {options.vocab:,}, documents of {options.length} tokens, batches of {options.batch}, float32, {options.device}, {options.threads} threads, torch {torch.__version__}\n"
    )
    print("| what | tokens/s |\n|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.0f} |")
    own = rates["own-loss, central differences"]
    print("\n| ratio | measured | bar |\n|---|---|---|")
    for name, value, bar in (
        ("own-loss (central) to kronfluence per-token scores", own / rates["kronfluence per-token scores"], ">= 1.5"),
        ("own-loss (central) to a training step", own / rates["training step (forward, backward, AdamW)"], ">= 1.5"),
        ("time of own-loss (central) to two forward passes", rates["forward pass with its loss"] / 2 / own, "<= 1.10"),
        ("EK-FAC fit to kronfluence's", rates["EK-FAC fit"] / rates["kronfluence EK-FAC fit"], ">= 2"),
        (
            "own-loss (jvp) to kronfluence per-token scores",
            rates["own-loss, exact (jvp)"] / rates["kronfluence per-token scores"],
            "–",
        ),
        ("position to kronfluence per-token scores", rates["position"] / rates["kronfluence per-token scores"], "–"),
    ):
        print(f"| {name} | {value:.2f} | {bar} |")


class KronfluencePeer:
    """kronfluence on the same model: its EK-FAC fit and its per-token scores with aggregated queries."""

    def __init__(self, options):
        from kronfluence.analyzer import Analyzer, prepare_model
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
        self.fit(make_documents(self._options, self._options.documents // 4), name="scoring")
        return self

    def __exit__(self, *_):
        shutil.rmtree(self._folder, ignore_errors=True)

    def _rows(self, documents) -> list[dict]:
        return [
            {"input_ids": torch.as_tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.int64)}
            for ids in documents
        ]

    def fit(self, documents, name: str = "") -> None:
        """Fit all factors."""
        from kronfluence.arguments import FactorArguments

        self._turn += 1
        arguments = FactorArguments(strategy="ekfac", use_empirical_fisher=True)
        self._analyzer.fit_all_factors(
            name or f"factors{self._turn}",
            self._rows(documents),
            per_device_batch_size=self._options.batch,
            factor_args=arguments,
            overwrite_output_dir=True,
        )

    def score(self, documents) -> None:
        """Score every token of the documents against a few aggregated queries."""
        from kronfluence.arguments import ScoreArguments

        self._turn += 1
        arguments = ScoreArguments(compute_per_token_scores=True, aggregate_query_gradients=True)
        self._analyzer.compute_pairwise_scores(
            f"scores{self._turn}", factors_name="scoring", query_dataset=self._rows(documents[:2]), train_dataset=self._rows(documents),
            per_device_query_batch_size=2, per_device_train_batch_size=self._options.batch, score_args=arguments, overwrite_output_dir=True,
        )  # fmt: skip


def print_exactness(options) -> None:
    """Central differences and jvp in float32 against jvp in float64, with a study's own model, direction and corpus."""
    from scipy.stats import spearmanr

    study = Study.open(options.study)
    name = study.checkpoint_names()[-1]
    entry = next(c for c in study.models()["checkpoints"] if c["name"] == name)
    model = load_model(entry["source"], attention="eager", device=options.device)
    double = load_model(entry["source"], attention="eager", device=options.device, dtype="float64")
    modules, double_modules = tracked_modules(model), tracked_modules(double)
    direction = artifacts.load_tensors(
        study.folder(Unit("direction")) / name / "direction.safetensors", device=options.device
    )
    corpus = study.corpus()
    offsets = np.asarray(corpus.offsets)[: options.exact_documents + 1]
    documents = [np.asarray(corpus.token_ids[a:b]) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    batches = as_batches(options, documents)

    def collect(function) -> np.ndarray:
        return np.concatenate([function(b)[b.targets != -100].double().cpu().numpy() for b in batches])

    exact = collect(
        lambda b: own_loss_scores(double, double_modules, {k: v.double() for k, v in direction.items()}, b)[0]
    )
    step = choose_step(model, modules, direction, batches[:4])
    central = CentralDifference(model, modules, direction, step.epsilon)
    print(
        f"\nExactness: study {study.name}, {name}, its own direction, {len(exact):,} corpus tokens; central step {step.epsilon:.3g}\n"
    )
    print("| float32 method | Pearson | Spearman | overlap of the top 1% |\n|---|---|---|---|")
    methods = {
        "jvp": collect(lambda b: own_loss_scores(model, modules, direction, b)[0]),
        "central differences": collect(lambda b: central.scores(b)[0]),
    }
    for method, values in methods.items():
        k = max(1, len(exact) // 100)
        overlap = len(np.intersect1d(np.argsort(exact)[-k:], np.argsort(values)[-k:])) / k
        print(
            f"| {method} | {np.corrcoef(exact, values)[0, 1]:.7f} | {spearmanr(exact, values)[0]:.7f} | {overlap:.3f} |"
        )


if __name__ == "__main__":
    main()
