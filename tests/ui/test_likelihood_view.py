import numpy as np

from ifguide.ui.compare import likelihood_view
from ifguide.ui.format import variant_titles
from ifguide.ui.palette import variant_colours

NAMES = ["base", "default"]
TITLES = variant_titles(NAMES)
FOUND = {
    "models": NAMES,
    "completions": [
        {
            "model": "base",
            "sample": 0,
            "pieces": [" a", " fox"],
            "log_probability": {"base": [-1.0, -2.0], "default": [-1.5, -6.0]},
        },
        {"model": "default", "sample": 0, "pieces": [" b"], "log_probability": {"base": [-3.0], "default": [-0.5]}},
        {"model": "default", "sample": 1, "pieces": [], "log_probability": {"base": [], "default": []}},
    ],
}


def payload(sample: int, chosen: str = "Suppressed minus Base model") -> dict:
    return likelihood_view.viewer_payload(
        FOUND, sample, TITLES, chosen, variant_colours(NAMES), "m:1", {"base": [(1, 3)]}
    )


def test_difference_is_the_model_minus_the_first_and_surprise_is_minus_the_log_probability():
    values = FOUND["completions"][0]["log_probability"]
    assert likelihood_view.layer_values(values, ("default", "base")).tolist() == [-0.5, -4.0]
    assert likelihood_view.layer_values(values, ("base", "")).tolist() == [1.0, 2.0]
    first, other = (likelihood_view.layer_values(values, c) for c in (("default", ""), ("base", "")))
    assert np.allclose(other - first, likelihood_view.layer_values(values, ("default", "base")))


def test_payload_holds_the_draw_of_every_model_with_all_layers():
    shown = payload(0)
    assert [item["title"] for item in shown["items"]] == ["Base model", "Suppressed"]
    assert shown["items"][0]["facts"] == "log-probability of all 2 tokens: Base model −3.0 · Suppressed −7.5"
    layers = {layer["name"]: layer for layer in shown["settings"]["layers"]}
    assert list(layers) == ["Suppressed minus Base model", "Surprise of Base model", "Surprise of Suppressed"]
    assert all(item["layers"].keys() == layers.keys() for item in shown["items"])
    assert layers["Suppressed minus Base model"]["ends"] == ["less likely", "likelier for Suppressed"]
    assert not layers["Suppressed minus Base model"]["oneSided"] and layers["Surprise of Base model"]["oneSided"]
    assert 2.5 < layers["Suppressed minus Base model"]["top"] <= 4.0
    assert payload(1)["items"][0]["texts"] == []
    hidden = likelihood_view.HIDDEN
    assert [item["marks"] for item in shown["items"]] == [[hidden, hidden], [0]]
    assert likelihood_view.mark_pieces(["a", "", "bc", "d"], [(1, 2)]) == [0, 0, hidden, 0]


def test_means_are_over_all_tokens_of_the_prompts_completions():
    columns, rows = likelihood_view.mean_table(FOUND, TITLES, variant_colours(NAMES))
    assert [c["label"] for c in columns] == ["Completions of", "Base model", "Suppressed"]
    assert [row["cells"][1:] for row in rows] == [["−1.50", "−3.75"], ["−3.00", "−0.50"]]
    assert rows[1]["cells"][0][1] == "1 token"
    empty = {"completions": [], "models": NAMES}
    assert likelihood_view.mean_table(empty, TITLES, variant_colours(NAMES))[1][0]["cells"][1:] == ["–", "–"]
    assert likelihood_view.viewer_payload(empty, 0, TITLES, "x", variant_colours(NAMES), "", {})["items"] == []


def test_choices_name_every_difference_and_every_model():
    for names in (["base", "a"], ["a", "base", "default", "oracle"]):
        found = likelihood_view.choices(variant_titles(names))
        assert len(found) == 2 * len(names) - 1
        assert [pair for pair in found.values() if pair[1]] == [(name, names[0]) for name in names[1:]]


def test_an_edited_model_is_called_so_where_it_is_read_and_where_it_writes():
    titles = variant_titles(NAMES, {"default"})
    columns, rows = likelihood_view.mean_table(FOUND, titles, variant_colours(NAMES), {"default"})
    assert "(edited)" in columns[2]["label"] and rows[1]["cells"][0][3] and not rows[0]["cells"][0][3]
    shown = likelihood_view.viewer_payload(
        FOUND, 0, titles, next(iter(likelihood_view.choices(titles))), variant_colours(NAMES), "", {}
    )
    assert "(edited)" in shown["items"][1]["title"] and "(edited)" in shown["settings"]["layers"][0]["title"]
