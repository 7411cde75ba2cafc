// The preview of what the handle selects, between exact knots: no server, no DOM. Knots go from the highest threshold down.
// "above" is the number of tokens with a higher score; every other count is interpolated linearly in it.

// The last place in an ascending list that is not above a value, or -1.
function placeOf(list, value) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// The value of `ys` where the ascending `xs` is at `x`; null if a neighbour is unknown.
function between(xs, ys, x) {
  const place = placeOf(xs, x);
  if (place < 0) return ys[0] === null ? null : ys[0] * (xs[0] ? Math.max(0, x) / xs[0] : 1);
  if (place >= xs.length - 1 || xs[place] === x) return ys[Math.min(place, ys.length - 1)];
  if (ys[place] === null || ys[place + 1] === null) return null;
  return ys[place] + ((ys[place + 1] - ys[place]) * (x - xs[place])) / (xs[place + 1] - xs[place]);
}

// The share of labelled tokens among those above, as far as it is known; null without labels.
function labelledShare({ threshold, above, span }) {
  if (!span) return null;
  const knots = above.map((_, i) => i).filter((i) => above[i] && span[0][i] !== null);
  return { threshold: knots.map((i) => threshold[i]), above: knots.map((i) => above[i]), share: knots.map((i) => span[0][i] / above[i]) };
}

function makePreview(data) {
  const { knots } = data;
  const falling = knots.threshold.map((value) => -value);
  const lowest = knots.above.at(-1);

  const thresholdAt = (above) => {
    const place = placeOf(knots.above, above);
    if (place < 0) return knots.threshold[0];
    return between(knots.above, knots.threshold, above);
  };
  const aboveAt = (threshold) => {
    const above = between(falling, knots.above, -threshold);
    return Math.max(1, Math.min(lowest, Math.round(above)));
  };

  // Everything the page shows of one position; null: known only on release.
  const at = ({ above, window, budget }) => {
    const counted = window < knots.covered.length;
    const covered = window === 0 ? above : counted ? between(knots.above, knots.covered[window], above) : null;
    const cut = budget > 0 && covered !== null && covered > budget;
    const whenWhole = (list) => (counted && list && !cut ? between(knots.above, list[window], above) : null);
    const tokens = cut ? budget : covered === null ? null : Math.round(covered);
    const span = whenWhole(knots.span);
    const documents = cut ? null : between(knots.above, knots.documents, above);
    return {
      above, window, budget, cut, covered, tokens,
      threshold: thresholdAt(above),
      documents: documents === null ? null : Math.round(documents),
      precision: span === null || !tokens ? null : Math.min(1, span / covered),
      recall: span === null || !data.nSpan ? null : span / data.nSpan,
      effect: whenWhole(knots.effect),
      shards: knots.shards && between(knots.above, knots.shards, above),
    };
  };

  // Words whose tokens lie between two positions, most frequent first; a level that is only partly inside counts in part.
  const wordsBetween = (from, to) => {
    const [low, high] = from < to ? [from, to] : [to, from];
    const counts = new Map();
    for (const [first, last, word, count] of data.words) {
      const inside = Math.min(high, last) - Math.max(low, first);
      if (inside > 0) counts.set(word, (counts.get(word) ?? 0) + (count * inside) / (last - first));
    }
    return [...counts].filter(([, count]) => count >= 0.5).sort((a, b) => b[1] - a[1]);
  };

  return { at, thresholdAt, aboveAt, wordsBetween, lowest };
}
