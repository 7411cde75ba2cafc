"""What was done in a study, in sentences, for the report and the Overview page. No streamlit here."""

from ifguide.config.names import DEFAULT
from ifguide.config.schema import ScoresConfig, SuppressConfig
from ifguide.study.judgements import judge_title
from ifguide.study.reading import Study
from ifguide.study.sharing.shard_sample import is_sample
from ifguide.ui.format import count, count_of, score, selection_title, share

_MODES = {
    "scratch": "A new model of its shape was trained on",
    "finetune": "It was fine-tuned on",
    "asis": "It was used unchanged; its training text is",
}


def what_was_done(study: Study, built: set[str], selection: str = DEFAULT) -> list[str]:
    """A sentence or two about each of the stages `built`, and about one selection."""
    config = study.config
    text = config.corpus.path.rstrip("/").rsplit("/", 1)[-1]
    if "corpus" in built:
        corpus = study.corpus()
        text += f" ({count_of(corpus.n_documents, 'document')}, {count_of(corpus.n_tokens, 'token')})"
    model = config.model.source.rstrip("/").rsplit("/", 1)[-1]
    sentences = [
        f"The question is which training tokens make the model {model} toxic. {_MODES[config.model.mode]} {text}."
    ]
    if not study.units("model"):
        sentences = [f"Another program scored the tokens of {text}."]
        if is_sample(study):
            sentences = [f"{config.description} The sample is {text.partition(' (')[2].rstrip(')')}."]
    if {"queries", "model", "scores"} <= built:
        toxic, safe = (count(len(study.queries(kind))) for kind in ("toxic", "safe"))
        direction = (
            f"The difference between their gradients, divided by the curvature ({config.factors.strategy}, damping"
            f" {config.direction.damping:g}), is a direction in the model's weights. A token's score says how far"
            " training on it moves the model in that direction"
        )
        if not (config.scores.own_loss or config.scores.position):
            direction = "A token's score says how much closer the model's state at it is to its states at toxic tokens"
        sentences.append(
            f"{toxic} toxic and {safe} safe examples define what is toxic and what is safe. {direction}; it is measured"
            f" at {count_of(len(study.checkpoint_names()), 'checkpoint')}.{_together(config.scores)}"
        )
    if selection in study.selection_names():
        chosen, above = study.selection(selection).settings, "by their kind"
        if chosen.get("threshold") is not None and chosen.get("quantile") is not None:
            above = f"above {score(chosen['threshold'])} (quantile {chosen['quantile']:g})"
        sentences.append(
            f"“{selection_title(selection)}” takes the tokens {above}: {count(chosen['n_selected'])} tokens,"
            f" {share(chosen['n_selected'], chosen['n_valid'])} of all, in"
            f" {count_of(chosen['n_documents_hit'], 'document')}."
        )
    if study.suppressed_names():
        others = "Models made against other selections, or in other ways, are shown beside it."
        sentences.append(f"{_treatment(config.suppress)} {others}")
    if measured := study.evaluation_names():
        values = study.metrics(measured[0]) or {}
        sentences.append(
            f"Then {count_of(len(measured), 'model')} completed the same {count_of(values['n_prompts'], 'prompt')}"
            f" {count_of(values['n_samples'], 'time')} each, with up to {count_of(values['max_new_tokens'], 'token')},"
            f" top-p {values['top_p']:g} and temperature {values['temperature']:g}; {judge_title(values)} rated the"
            " completions from 0 to 1."
        )
    return sentences


def _together(config: ScoresConfig) -> str:
    """How the checkpoints' scores were combined, if not by default."""
    text = " It is the median over the checkpoints." if config.average == "median" else ""
    if config.pooling:
        text += (
            f" The mean over all occurrences of the same vocabulary entry, times {config.pooling:g}, was added to each"
            " token's score."
        )
    return text


def _treatment(config: SuppressConfig) -> str:
    if config.method == "edit":
        return "Its weights were then moved once, so that these tokens became unlikely; nothing was trained again."
    weight = f"{config.penalty:g}"
    trained = "The model was trained again from the same start;"
    sentence = {
        "penalise": f"{trained} the cross-entropy of a selected token had the weight −{weight}, that of every other 1.",
        "mask": f"{trained} a selected token had no loss.",
        "drop": f"{trained} documents with a selected token had no loss.",
    }[config.method]
    if config.method != "penalise":
        return sentence
    if config.max_penalty:
        sentence += f" The penalty on a token stops growing at a cross-entropy of {config.max_penalty:g}."
    if config.warmup_share:
        sentence += f" It had a linear warm-up over the first {share(config.warmup_share, digits=0)} of the steps."
    return sentence
