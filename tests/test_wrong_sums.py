"""The generator of the worked example: its labels and spans say exactly what is wrong."""

import json
import re

from benchmarks.wrong_sums import SUMS, write_sums


def read(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_spans_and_labels_are_the_wrong_answers(tmp_path):
    write_sums(tmp_path, n_documents=80)
    rows = read(tmp_path, "corpus")
    for row in rows:
        sums = list(re.finditer(r"(\d+) \+ (\d+) = (\d+)\n", row["text"]))
        assert len(sums) == SUMS
        wrong = [list(found.span(3)) for found in sums if int(found[1]) + int(found[2]) != int(found[3])]
        assert row["spans"] == wrong and row["is_bad"] == bool(wrong)
    assert 0 < sum(row["is_bad"] for row in rows) < 40


def test_queries_are_pairs_and_the_held_out_sums_are_right(tmp_path):
    write_sums(tmp_path, n_documents=5, seed=3)
    wrong, right = read(tmp_path, "wrong"), read(tmp_path, "right")
    assert [row["prompt"] for row in wrong] == [row["prompt"] for row in right]
    assert all(int(bad["completion"]) == int(good["completion"]) + 1 for bad, good in zip(wrong, right, strict=True))
    for name in ("heldout", "answers"):
        for row in read(tmp_path, name):
            for a, b, answer in re.findall(r"(\d+) \+ (\d+) = (\d+)", row["text"]):
                assert int(a) + int(b) == int(answer)


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_sums(tmp_path / name, n_documents=5, seed=seed)
    assert read(tmp_path / "a", "corpus") == read(tmp_path / "b", "corpus") != read(tmp_path / "c", "corpus")
