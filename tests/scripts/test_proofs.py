"""The scripts that prove what models can do: their data are what they say, and they run."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def scripts() -> Path:
    return Path(__file__).parents[2] / "scripts"


@pytest.fixture
def synthetic(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(scripts))
    return __import__("synthetic_tasks")


@pytest.fixture
def simulated(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(scripts))
    return __import__("simulated_dna")


def test_the_answer_of_induction_follows_the_mark(synthetic: ModuleType) -> None:
    tokens, targets = synthetic.induction(200, torch.Generator().manual_seed(0))
    assert tokens.shape == targets.shape == (200, 31)
    for row, answers in zip(tokens.tolist(), targets.tolist(), strict=True):
        assert row[-1] == 19
        assert row[:-1].count(19) == 1
        assert answers == [-100] * 30 + [row[row.index(19) + 1]]
    assert set(tokens.flatten().tolist()) == set(range(20))


def test_the_answers_of_recall_were_seen(synthetic: ModuleType) -> None:
    tokens, targets = synthetic.recall(200, torch.Generator().manual_seed(0))
    assert tokens.shape == targets.shape == (200, 21)
    assert set(tokens.flatten().tolist()) == set(range(10))
    tables = set()
    for row, answers in zip(tokens.tolist(), targets.tolist(), strict=True):
        values: dict[int, int] = {}
        for at in range(0, 21, 2):
            assert answers[at] == values.get(row[at], -100)
            if at < 20:
                assert answers[at + 1] == -100
                assert values.setdefault(row[at], row[at + 1]) == row[at + 1]
        assert answers[-1] >= 5
        tables.add(tuple(sorted(values.items())))
    assert len(tables) > 100


def test_every_kind_of_mixer_is_asked(synthetic: ModuleType) -> None:
    assert list(synthetic.MODELS) == ["h3", "hyena", "hybrid", "multihybrid", "attention"]
    for name in synthetic.MODELS:
        logits = synthetic.build(name, 20)(torch.randint(20, (2, 31)))
        assert logits.shape == (2, 31, 20)


def _run(script: Path, *arguments: str) -> list[dict]:
    outcome = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    return [json.loads(line) for line in outcome.stdout.splitlines()]


@pytest.mark.slow
def test_synthetic_tasks_run(scripts: Path, tmp_path: Path) -> None:
    few = ["--steps", "2", "--batch", "4", "--seeds", "3", "--models", "h3", "hyena"]
    rows = _run(scripts / "synthetic_tasks.py", *few, "--out", str(tmp_path / "rows.jsonl"))
    assert [(row["task"], row["model"]) for row in rows] == [
        (task, model) for task in ("induction", "recall") for model in ("h3", "hyena")
    ]
    assert all(row["steps"] == 2 and 0 <= row["accuracy"] < 0.5 and not row["reached"] for row in rows)
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == rows


def test_the_entropy_rate_is_the_stated_one(simulated: ModuleType) -> None:
    """Whatever came before, what is added to the likeliest base has the distribution Q."""
    tokens = simulated.simulate(40, 4000, np.random.default_rng(1)) - 7
    assert tokens.min() == 0
    assert tokens.max() == 3
    gaps = (50, 97, 149, 200)
    added, context = [], []
    for row in tokens[:4].tolist():
        for t in range(200, len(row)):
            last, before = row[t - 1], row[t - 2]
            likeliest = (2 * last + before + 1) % 4 if last < 2 else row[t - gaps[2 * (last - 2) + before // 2]]
            added.append((row[t] - likeliest) % 4)
            context.append(4 * before + last)
    shares = np.bincount(added, minlength=4) / len(added)
    assert np.abs(shares - [0.7, 0.1, 0.1, 0.1]).max() < 0.015
    for one in range(16):
        chosen = np.array(added)[np.array(context) == one]
        assert len(chosen) > 200
        assert abs((chosen == 0).mean() - 0.7) < 5 * math.sqrt(0.21 / len(chosen))
    exact = -0.7 * math.log2(0.7) - 0.3 * math.log2(0.1)
    assert pytest.approx(exact) == simulated.ENTROPY_RATE


def test_no_markov_model_comes_near(simulated: ModuleType) -> None:
    found = simulated.markov(np.random.default_rng(0), bases=1 << 19)
    assert len(found["orders"]) == 9
    assert found["bits"] == min(found["orders"]) > 1.02 * simulated.ENTROPY_RATE
    # The two last bases tell half of the likeliest bases; the others look even.
    assert found["bits"] == pytest.approx((simulated.ENTROPY_RATE + 2) / 2, abs=0.01)


def test_bits_of_who_knows_the_rule_are_the_entropy_rate(simulated: ModuleType) -> None:
    """And of an even guess 2; so what the script prints is on the right scale."""
    tokens = torch.from_numpy(simulated.simulate(64, 513, np.random.default_rng(2)))

    class Rule(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            bases = ids.numpy().astype(int) - 7
            logits = np.zeros((*ids.shape, 16))
            for t in range(199, ids.shape[1]):
                far = np.stack([bases[:, t + 1 - gap] for gap in simulated.GAPS])
                best = simulated.likeliest(bases[:, t], bases[:, t - 1], far)
                logits[np.arange(len(ids)), t, 7 + best] = math.log(7)
            return torch.from_numpy(logits)

    found = simulated.bits(Rule(), tokens)
    assert found.shape == (64,)
    assert found.mean() == pytest.approx(simulated.ENTROPY_RATE, rel=0.02)
    # Log-probabilities of 7 to 1 are those of Q, so that the script's own account of the rule is this one.
    np.testing.assert_allclose(simulated.rule_bits(tokens.numpy()), found, rtol=1e-6)
    even = type("Even", (torch.nn.Module,), {"forward": lambda self, ids: torch.zeros(*ids.shape, 16)})()
    assert simulated.bits(even, tokens).mean() == pytest.approx(2)


def test_the_error_of_a_mean_covers_the_entropy_rate(simulated: ModuleType) -> None:
    """Bits of the rule over fresh sequences scatter about the rate as their standard error says."""
    means, errors = zip(
        *(
            simulated.mean_and_error(simulated.rule_bits(simulated.simulate(64, 513, np.random.default_rng(seed))))
            for seed in range(8)
        ),
        strict=True,
    )
    off = (np.array(means) - simulated.ENTROPY_RATE) / np.array(errors)
    assert np.abs(off).max() < 3.5
    assert 0.3 < np.sqrt((off**2).mean()) < 2
    assert np.mean(errors) == pytest.approx(1.286 / math.sqrt(64 * 313), rel=0.1)


@pytest.mark.slow
def test_simulated_dna_and_decode_time_run(scripts: Path) -> None:
    few = ["--no-markov", "--models", "multihybrid", "--steps", "2", "--rows", "1", "--tested", "8"]
    rows = _run(scripts / "simulated_dna.py", *few)
    assert [row["model"] for row in rows] == ["multihybrid"]
    assert 0.3 < rows[0]["above"] < 0.8, "it has learned nothing yet"
    assert rows[0]["tested_bases"] == 8 * 313
    assert rows[0]["above_rule"] == pytest.approx((rows[0]["bits"] - rows[0]["rule_bits"]) / rows[0]["entropy_rate"])
    rows = _run(scripts / "decode_time.py", "--models", "Hyena", "--last", "2048")
    assert [(row["from"], row["to"]) for row in rows] == [(1024, 2048)]


@pytest.mark.slow
def test_a_long_input_runs(scripts: Path) -> None:
    few = ["--models", "short", "--channels", "16", "--length", "140000", "--conv-backend", "reference"]
    (row,) = _run(scripts / "long_input.py", *few)
    assert row["length"] == 140_000
    assert -2 < row["nats_per_base"] < -1.3
    assert row["peak_bytes"] >= row["peak_bytes_with_131072"] > 1e8
