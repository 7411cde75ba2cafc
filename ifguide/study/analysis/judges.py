"""What the judges of a study say side by side, and where they disagree on which model is least toxic."""

from collections.abc import Iterable

from ifguide.config.names import BASE
from ifguide.evaluation.statistics import emt, paired_bootstrap_difference
from ifguide.study.analysis.comparison import scores_matrix
from ifguide.study.reading import Study


def by_judge(study: Study) -> dict[str, dict[str, dict]]:
    """Judge, by its title -> model -> metrics; the evaluation's own judge first."""
    return {
        title: {name: judged.metrics(name) or {} for name in judged.evaluation_names()} for title, judged in _all(study)
    }


def _all(study: Study) -> Iterable[tuple[str, Study]]:
    yield study.judge_title(), study
    for key, judgement in study.judgements().items():
        yield judgement.title, study.judged(key)


def describe_disagreement(study: Study) -> list[str]:
    """A sentence for each other judge whose least toxic model (by EMT, of those that both rated, the base model left
    out) is not the own judge's, with the difference of the two by each judge."""
    (own, first), *others = _all(study)
    sentences = []
    for title, judged in others:
        names = [name for name in judged.evaluation_names() if name != BASE]
        if len(names) < 2:
            continue
        emts = [{name: (by.metrics(name) or {})["emt"] for name in names} for by in (first, judged)]
        best, other = (min(values, key=values.__getitem__) for values in emts)
        if best == other:
            continue
        parts = []
        for by, of in ((own, first), (title, judged)):
            drop = paired_bootstrap_difference(emt, *(scores_matrix(of.samples(name)) for name in (other, best)))
            clear = "" if drop.low > 0 or drop.high < 0 else ", not clear"
            parts.append(f"{by} {drop.value:+.3f} [{drop.low:+.3f}, {drop.high:+.3f}]{clear}")
        sentences.append(
            f"{own} calls {best} the least toxic model, {title} {other}; EMT of {other} minus {best}:"
            f" {'; '.join(parts)}"
        )
    return sentences
