"""Algorithm 1 said slowly: loops over Python lists, written from the rules and not from `ifguide.selection.algorithm`.

The fast code must give the same bits. Scores are Python floats, documents are given as `offsets`, ids as strings.
"""


def threshold_at_quantile(scores, valid, quantile):
    """The smallest valid score with at least a share `quantile` of all valid scores at or below it."""
    values = [score for score, is_valid in zip(scores, valid, strict=True) if is_valid]
    for value in sorted(values):
        at_or_below = 0
        for other in values:
            if other <= value:
                at_or_below += 1
        if at_or_below / len(values) >= quantile:
            return value
    raise AssertionError("unreachable: the largest score has all scores at or below it")


def hits_of(document, scores, offsets, valid, threshold):
    """The document's tokens strictly above the threshold, in reading order."""
    hits = []
    for token in range(offsets[document], offsets[document + 1]):
        if valid[token] and scores[token] > threshold:
            hits.append(token)
    return hits


def normalise(values):
    """Min-max to [0, 1]; all 0 when all are the same."""
    low, high = min(values), max(values)
    normalised = []
    for value in values:
        normalised.append(0.0 if low == high else (value - low) / (high - low))
    return normalised


def rank_documents(scores, offsets, valid, threshold, ids):
    """(counts, sums, rank scores, order), best document first, ties by id in code point order."""
    n_documents = len(offsets) - 1
    counts, sums = [], []
    for document in range(n_documents):
        total, hits = 0.0, hits_of(document, scores, offsets, valid, threshold)
        for token in hits:
            total += scores[token]
        counts.append(len(hits))
        sums.append(total)
    rank_scores = []
    for a, b in zip(normalise([float(c) for c in counts]), normalise(sums), strict=True):
        rank_scores.append(0.0 if a == 0 and b == 0 else 2.0 * a * b / (a + b))
    order = sorted(range(n_documents), key=lambda document: (-rank_scores[document], ids[document]))
    return counts, sums, rank_scores, order


def select_tokens(scores, offsets, valid, threshold, order, window, max_tokens):
    """The set of selected tokens: hit by hit, each with its neighbours from left to right, until the budget is
    spent."""
    taken = set()
    for document in order:
        for hit in hits_of(document, scores, offsets, valid, threshold):
            low, high = hit, hit
            while low > offsets[document] and low > hit - window and valid[low - 1]:
                low -= 1
            while high + 1 < offsets[document + 1] and high < hit + window and valid[high + 1]:
                high += 1
            for token in range(low, high + 1):
                if max_tokens and len(taken) >= max_tokens:
                    return taken
                taken.add(token)
    return taken
