"""What was done in the study, in sentences, for the report."""

from ifguide.config.schema import ScoresConfig, SuppressConfig
from ifguide.errors import IFGuideError
from ifguide.ui.format import count, count_of, score, selection_title, share
from ifguide.ui.report.facts import ReportFacts

_MODES = {
    "scratch": "It was trained from a random start on the whole corpus",
    "finetune": "It was fine-tuned on the whole corpus",
    "asis": "It was used unchanged, with this training text",
}


def what_was_done(facts: ReportFacts) -> list[str]:
    """A sentence or two for each step that was run."""
    study, config = facts.study, facts.study.config
    said = []
    if "corpus" in facts.manifests:
        corpus = study.corpus()
        said.append(
            f"The question is which training tokens make the model {config.model.source} toxic."
            f" {_MODES[config.model.mode]}: {count_of(corpus.n_documents, 'document')},"
            f" {count_of(corpus.n_tokens, 'token')}."
        )
    if "scores" in facts.manifests:
        said.append(
            f"{_queries(facts)} define what is toxic and what is safe. The difference of their gradients, divided by"
            f" the curvature ({config.factors.strategy}, damping {config.direction.damping:g}), is a direction in the"
            f" model's weights. Every token was scored at {count_of(len(study.checkpoint_names()), 'checkpoint')}: how"
            f" far training on it moves the model in that direction.{_together(config.scores)}"
        )
    chosen = next((found.settings for found in facts.selections if found.name == facts.selection), None)
    if chosen is not None:
        above = "by their kind"
        if chosen.get("threshold") is not None and chosen.get("quantile") is not None:
            above = f"above {score(chosen['threshold'])} (quantile {chosen['quantile']:g})"
        said.append(
            f"“{selection_title(facts.selection)}” takes the tokens {above}: {count(chosen['n_selected'])} tokens,"
            f" {share(chosen['n_selected'], chosen['n_valid'])} of all, in"
            f" {count_of(chosen['n_documents_hit'], 'document')}."
        )
    if any(name.startswith("suppress") for name in facts.manifests):
        said.append(
            f"The model was trained again from the same start; {_treatment(config.suppress)} Models trained against"
            " other selections, or in other ways, are shown beside it."
        )
    values = facts.metrics[facts.first]
    said.append(
        f"Then {count_of(len(facts.metrics), 'model')} completed the same {count_of(values['n_prompts'], 'prompt')}"
        f" {count_of(values['n_samples'], 'time')} each, with up to {count_of(values['max_new_tokens'], 'token')},"
        f" top-p {values['top_p']:g} and temperature {values['temperature']:g}; {values['scorer']} rated the"
        " completions from 0 to 1."
    )
    return said


def _together(config: ScoresConfig) -> str:
    """How the checkpoints' scores were combined, where the settings differ from the defaults."""
    said = " Its score is the median over the checkpoints." if config.average == "median" else ""
    if config.pooling:
        said += (
            f" The mean over all occurrences of the same vocabulary entry, times {config.pooling:g}, was added to each"
            " token's score."
        )
    return said


def _treatment(config: SuppressConfig) -> str:
    """How selected tokens were treated."""
    weight = f"{config.penalty:g}"
    how = {
        "penalise": f"the cross-entropy of a selected token had the weight −{weight}, that of every other token 1.",
        "unlikelihood": f"the unlikelihood loss of a selected token had the weight {weight}.",
        "mask": "a selected token had no loss.",
        "drop": "documents with a selected token had no loss.",
    }[config.method]
    if config.max_penalty and config.method == "penalise":
        how += f" The penalty on a token stops growing at a cross-entropy of {config.max_penalty:g}."
    if config.warmup_share and config.method in ("penalise", "unlikelihood"):
        how += f" It had a linear warm-up over the first {share(config.warmup_share, digits=0)} of the steps."
    return how


def _queries(facts: ReportFacts) -> str:
    try:
        sizes = [len(facts.study.queries(kind)) for kind in ("toxic", "safe")]
    except IFGuideError:
        return "Toxic and safe examples"
    return f"{count(sizes[0])} toxic and {count(sizes[1])} safe examples"
