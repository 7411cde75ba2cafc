"""Everything that pages show on demand, computed before a study is packed and its models stay behind."""

from collections.abc import Sequence

from ifguide.evaluation.mechanism_settings import MechanismSettings
from ifguide.runtime.progress import Progress
from ifguide.study.analysis import document_map, explain, likelihood, mechanism
from ifguide.study.on_demand import read_result
from ifguide.study.reading import Study
from ifguide.study.stages.evaluating import load_evaluated


def complete_study(study: Study, pairs: Sequence[tuple[int, Sequence[str]]], progress: Progress) -> None:
    """Compute what is missing of: explanations of the best-ranked documents and of the queries, the layers of models,
    the map, and the token probabilities of `pairs`, each a prompt's index and the models that completed it."""
    explain.explain_top(study, explain.TOP, progress)
    if read_result(explain.queries_path(study)) is None:
        explain.explain_queries(study, progress)
    if len(models := mechanism.comparable_models(study)) > 1 and mechanism.read_layers(study, models) is None:
        mechanism.measure_mechanism(study, MechanismSettings(models=models, search=False), progress)
    if document_map.read_map(study) is None:
        document_map.draw_map(study, progress)
    for prompt, names in pairs:
        if likelihood.read_likelihoods(study, prompt, names) is None:
            likelihood.compute_likelihoods(study, prompt, names, load_evaluated)
