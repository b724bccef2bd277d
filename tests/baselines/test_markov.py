import gzip
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dnasm.baselines import markov
from dnasm.baselines.markov import MarkovModel, score_orders
from dnasm.vocabulary import PAD, Tokens, encode, reverse_complement

BASES = "ACGT"
YEAST_BITS = {0: 1.9615, 2: 1.9477, 4: 1.9422, 6: 1.9388, 8: 1.9390}

dna = st.text(alphabet="ACGTN", max_size=60)


def naive_counts(sequences: list[str], order: int) -> list[Counter[str]]:
    counts = [Counter[str]() for _ in range(order + 1)]
    for sequence in sequences:
        for end in range(1, len(sequence) + 1):
            for k in range(min(order, end - 1) + 1):
                kmer = sequence[end - k - 1 : end]
                if "N" not in kmer:
                    counts[k][kmer] += 1
    return counts


def naive_log_prob(counts: list[Counter[str]], context: str, base: str, order: int, weight: float) -> float:
    if order < 0:
        return 0.25
    if len(context) < order or "N" in context[len(context) - order :]:
        return naive_log_prob(counts, context, base, order - 1, weight)
    context = context[len(context) - order :]
    total = sum(counts[order][context + x] for x in BASES)
    lower = naive_log_prob(counts, context, base, order - 1, weight)
    return (counts[order][context + base] + weight * lower) / (total + weight)


def naive_log_probs(counts: list[Counter[str]], sequence: str, order: int, weight: float) -> list[float]:
    return [
        math.nan if base == "N" else math.log(naive_log_prob(counts, sequence[:i], base, order, weight))
        for i, base in enumerate(sequence)
    ]


@given(st.lists(dna, max_size=3), dna, st.integers(0, 4), st.booleans(), st.sampled_from([16.0, 0.5]))
@example(["ACGTACGNNACGT", "A"], "NACGTNNACGTTTN", 3, True, 16.0)
def test_equals_counting_in_a_dict(
    training: list[str], target: str, order: int, both_strands: bool, weight: float
) -> None:
    other = [reverse(sequence) for sequence in training] if both_strands else []
    counts = naive_counts(training + other, order)
    model = MarkovModel.fit([encode(s) for s in training], order, both_strands=both_strands, weight=weight)
    found = model.log_probs(encode(target))
    for k in range(order + 1):
        np.testing.assert_allclose(found[k], naive_log_probs(counts, target, k, weight), rtol=1e-12)
    assert model.num_counted == sum(counts[0].values())


def reverse(sequence: str) -> str:
    return sequence[::-1].translate(str.maketrans("ACGT", "TGCA"))


@settings(max_examples=30)
@given(st.text(alphabet="ACGTN", min_size=20, max_size=90), st.integers(1, 7), st.integers(0, 4))
def test_chunks_leave_no_seam(sequence: str, chunk: int, order: int) -> None:
    tokens = encode(sequence)
    whole = MarkovModel.fit([tokens], order)
    expected = whole.log_probs(tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markov, "_CHUNK", chunk)
        pieces = MarkovModel.fit([tokens], order)
        np.testing.assert_array_equal(whole.log_probs(tokens), expected)
    for k in range(order + 1):
        np.testing.assert_array_equal(pieces._counts[k], whole._counts[k])


@given(st.text(alphabet="ACGTN", min_size=2, max_size=60), st.data(), st.integers(0, 4))
def test_pieces_with_context_count_as_the_whole(sequence: str, data: st.DataObject, order: int) -> None:
    tokens, cut = encode(sequence), data.draw(st.integers(1, len(sequence) - 1))
    first = max(0, cut - order)
    whole, parts = (
        MarkovModel.fit([tokens], order),
        MarkovModel.fit([tokens[:cut], (tokens[first:], cut - first)], order),
    )
    for k in range(order + 1):
        np.testing.assert_array_equal(parts._counts[k], whole._counts[k])
    np.testing.assert_array_equal(whole.log_probs(tokens[first:], cut - first), whole.log_probs(tokens)[:, cut:])


def test_tables_larger_than_a_chunk_count_the_same() -> None:
    tokens = encode("".join(np.random.default_rng(0).choice(list(BASES), 3000)))
    counts = naive_counts(["".join(BASES[t - 7] for t in tokens)], 7)
    model = MarkovModel.fit([tokens], 7)  # 4**8 > 3000
    assert model._counts[7].sum() == sum(counts[7].values())
    assert model._counts[7].max() == max(counts[7].values())


@pytest.mark.slow
def test_order_12_counts_in_4_bytes() -> None:
    tokens = encode("ACGT" * 20)
    model = MarkovModel.fit([tokens, reverse_complement(tokens)], 12)
    assert model._counts[12].dtype == np.uint32
    assert model._counts[12].sum() == 2 * (80 - 12)
    assert model.log_probs(tokens)[12, -1] == pytest.approx(
        math.log((34 + 16 * math.exp(model.log_probs(tokens)[11, -1])) / (34 + 16))
    )


def test_every_context_gives_a_distribution() -> None:
    model = MarkovModel.fit([encode("ACGGTNACAGT")], 3)
    for context in ("", "A", "AC", "GGT", "TTT", "NA"):
        total = sum(math.exp(model.log_probs(encode(context + base))[3, -1]) for base in BASES)
        assert total == pytest.approx(1)


def test_nothing_learned_is_two_bits() -> None:
    scores = score_orders(MarkovModel.fit([], 2), [(encode("ACGTNA"), 0)])
    assert scores.bits_per_base == [2, 2, 2]
    assert (scores.num_targets, scores.num_counted) == (5, 0)


def test_weights_and_contexts_of_targets() -> None:
    model = MarkovModel.fit([encode("AACCAACCGT")], 1)
    tokens = encode("AACNG")
    log_probs = model.log_probs(tokens)
    scores = score_orders(model, [(tokens, 1, np.array([1, 0.5, 1, 0], dtype=np.float16))])
    for k in (0, 1):
        expected = -(log_probs[k, 1] + 0.5 * log_probs[k, 2]) / 1.5 / math.log(2)
        assert scores.bits_per_base[k] == pytest.approx(expected)
    assert (scores.num_targets, scores.total_weight) == (2, 1.5)
    assert scores.best == (1, scores.bits_per_base[1])


def test_likelihood_of_a_sequence_sums_its_bases() -> None:
    model = MarkovModel.fit([encode("ACGTTGCAAC")], 2)
    tokens = encode("ACNGT")
    assert model.log_likelihood(tokens) == pytest.approx(np.nansum(model.log_probs(tokens)[2]))
    assert model.log_likelihood(tokens, 0) == pytest.approx(np.nansum(model.log_probs(tokens)[0]))


def test_padding_breaks_a_context_like_n() -> None:
    model = MarkovModel.fit([encode("ACGTTGCAAC")], 2)
    padded = encode("ACNGT")
    padded[2] = PAD
    np.testing.assert_array_equal(model.log_probs(padded), model.log_probs(encode("ACNGT")))


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="order is 13"):
        MarkovModel.fit([], 13)
    with pytest.raises(ValueError, match="weight is 0"):
        MarkovModel.fit([], 1, weight=0.0)
    with pytest.raises(ValueError, match="nothing was scored"):
        score_orders(MarkovModel.fit([], 1), [(encode("NNN"), 0)])


@pytest.fixture(scope="module")
def yeast(root: Path) -> dict[str, Tokens]:
    with gzip.open(root / "data/yeast_r64.fa.gz", "rt") as file:
        records = [record.split("\n", 1) for record in file.read().split(">")[1:]]
    return {header.split()[0]: encode(lines.replace("\n", "")) for header, lines in records}


def test_yeast_gives_the_known_bits(yeast: dict[str, Tokens]) -> None:
    training = [tokens for name, tokens in yeast.items() if name != "chrVIII"]
    target = yeast["chrVIII"]
    one = score_orders(MarkovModel.fit(training, 8), [(target, 0)])
    for order, bits in YEAST_BITS.items():
        assert one.bits_per_base[order] == pytest.approx(bits, abs=0.0005)
    assert (one.num_targets, one.num_counted) == (562_643, 12_071_326 - 562_643)
    both = score_orders(MarkovModel.fit(training, 8, both_strands=True), [(target, 0)])
    assert both.best == (8, pytest.approx(1.9343, abs=0.0005))
