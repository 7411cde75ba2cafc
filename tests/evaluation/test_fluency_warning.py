import math

from ifguide.evaluation.fluency import fluency_warning

BASE = {"perplexity": 20.0, "distinct_2": 0.6, "repetition": 0.02, "empty_share": 0.01}


def test_a_sound_model_has_none():
    assert fluency_warning(BASE, None) is None
    assert fluency_warning(BASE, BASE) is None
    limits = {"perplexity": 29.9, "distinct_2": 0.31, "repetition": 0.11, "empty_share": 0.1}
    assert fluency_warning({**BASE, **limits}, BASE) is None


def test_each_way_to_break_is_named():
    for change, said in (
        ({"perplexity": 31.0}, "1.6 times the base model's"),
        ({"perplexity": math.inf}, "infinite"),
        ({"perplexity": None}, "evaluate.heldout"),
        ({"distinct_2": 0.2}, "less than half"),
        ({"repetition": 0.13}, "13% of the four-word runs"),
        ({"empty_share": 0.5}, "50% of the completions are empty"),
    ):
        assert said in fluency_warning({**BASE, **change}, BASE), change


def test_the_base_is_held_against_nothing():
    assert fluency_warning({**BASE, "perplexity": 1e9}, None) is None
    assert fluency_warning({**BASE, "perplexity": None}, None) is None
    assert "empty" in fluency_warning({**BASE, "empty_share": 0.2}, None)
    assert "repeat" in fluency_warning({**BASE, "repetition": 0.2}, None)


def test_all_that_is_wrong_is_said():
    said = fluency_warning({"perplexity": 99.0, "distinct_2": 0.0, "repetition": 1.0, "empty_share": 1.0}, BASE)
    assert all(word in said for word in ("Perplexity", "variety", "repeat", "empty"))
