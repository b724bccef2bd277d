"""`dnasm pretrain` in process: plan, run directory, baselines, and what it refuses."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dnasm
from dnasm import cli, presets
from dnasm.arguments import build_parser, fill, read_arguments
from dnasm.baselines.markov import MarkovModel
from dnasm.config import DataConfig, GenomeConfig, PretrainConfig
from dnasm.datasets.corpus import Corpus
from dnasm.errors import ConfigError, InputError, OutputError
from dnasm.genome import Genome
from dnasm.models.likelihood import target_log_probs
from dnasm.tasks import pretrain
from dnasm.tasks.baseline_table import best_baseline, comparison_text, markov_rows
from dnasm.training.result import ValidationResult
from tests.tasks.runs import WINDOW, patchy_letters, shuffled, write_config, write_fasta


def read_config(path: Path, *flags: str) -> PretrainConfig:
    parser = build_parser(PretrainConfig, "dnasm pretrain", [], "")
    return fill(PretrainConfig, parser, read_arguments(["--config", str(path), *flags], PretrainConfig, []))


# A run


def test_a_run_directory_holds_what_it_says(trained_run: Path, patchy_fasta: Path) -> None:
    names = {path.name for path in trained_run.iterdir()}
    assert names == {
        "config.yaml", "run.json", "metrics.csv", "tensorboard", "checkpoints", "model", "baselines.json",
        "position_loss.csv",
    }  # fmt: skip
    record = json.loads((trained_run / "run.json").read_text())
    counts = record["counts"]
    assert counts["state"] == "done"
    assert (counts["steps"], counts["tokens"]) == (150, 150 * 16 * WINDOW)
    assert record["seed"] == 3
    assert record["versions"]["dnasm"] == dnasm.__version__
    (source,) = record["inputs"]
    assert source["path"] == str(patchy_fasta)
    assert source["bytes"] == patchy_fasta.stat().st_size
    assert len(source["sha256"]) == 64


def test_the_saved_config_starts_the_same_run(trained_run: Path, patchy_fasta: Path) -> None:
    saved = read_config(trained_run / "config.yaml")
    given = read_config(patchy_fasta.with_name("run.yaml"), "--out", str(trained_run), "--quiet", "--seed", "3")
    assert saved == given


def test_the_exported_model_has_the_loss_that_was_reported(trained_run: Path) -> None:
    counts = json.loads((trained_run / "run.json").read_text())["counts"]
    model = dnasm.load(trained_run / "model", device="cpu")
    settings = read_config(trained_run / "config.yaml")
    corpus = Corpus(settings.data)
    tokens, weights = corpus.read(corpus.validation)
    with torch.no_grad():
        log_p = target_log_probs(model(torch.from_numpy(tokens)), torch.from_numpy(tokens)).double().numpy()
    bits = -(log_p * weights[:, 1:]).sum() / weights[:, 1:].sum() / np.log(2)
    assert bits == pytest.approx(counts["best_validation_bits_per_base"], rel=1e-6)
    assert int(weights[:, 1:].sum()) == counts["validation_targets"]
    provenance = json.loads((trained_run / "model/provenance.json").read_text())
    assert provenance["steps"] == counts["best_step"]


def test_the_model_is_below_every_markov_order_where_context_is_long(trained_run: Path) -> None:
    table = json.loads((trained_run / "baselines.json").read_text())
    (model, _) = table["model"]
    markov = [row for row in table["markov"] if row["genome"] == "all"]
    assert {(row["order"], row["strands"]) for row in markov} == {(k, s) for k in range(9) for s in ("one", "both")}
    assert {row["targets"] for row in markov} == {model["targets"]}
    assert model["bits_per_base"] < min(row["bits_per_base"] for row in markov) - 0.005


def test_metrics_have_training_and_validation_rows(trained_run: Path) -> None:
    with (trained_run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train_bits_per_base"]] == [str(s) for s in range(10, 151, 10)]
    assert [row["step"] for row in rows if row["val_bits_per_base"]] == ["50", "100", "150"]
    assert 1.9 < float(rows[0]["train_bits_per_base"]) < 2.1


def test_shuffled_bases_fail_the_check_after_everything_is_written(
    tmp_path: Path, patchy_fasta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letters = shuffled(patchy_letters(100_000, 0))
    fasta = write_fasta(tmp_path / "s.fa", {"train": letters[:70_000], "held": letters[70_000:]})
    settings = write_config(tmp_path / "c.yaml", fasta, max_steps=60, validate_every=30, require_below_markov=True)
    run = tmp_path / "run"
    assert cli.main(["pretrain", "--config", str(settings), "--out", str(run), "--quiet"]) == 1
    said = capsys.readouterr()
    assert "bits per base" in said.err
    assert "Markov model of order" in said.err
    assert "60 steps" in said.out
    assert json.loads((run / "run.json").read_text())["counts"]["state"] == "done"
    assert (run / "model/model.safetensors").exists()


# The shipped demo


def demo(tmp_path: Path, *flags: str) -> PretrainConfig:
    return read_config(Path("dnasm:configs/demo.yaml"), "--out", str(tmp_path / "run"), *flags)


@pytest.mark.slow
def test_the_demo_on_shuffled_bases_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo's own configuration, a few steps of it, on the same genomes with their bases shuffled."""
    settings = demo(tmp_path)
    genomes = []
    for number, genome in enumerate(settings.data.genomes):
        source = Genome(genome.path)
        names = [name for name in source.contigs if name in ("chrI", "chrVIII", "human_chr20_sample")]
        contigs = {name: shuffled(source[name, 0 : source.contigs[name]]) for name in names}
        path = write_fasta(tmp_path / f"shuffled{number}.fa", contigs)
        genomes.append(replace(genome, path=str(path)))
    data = replace(settings.data, genomes=genomes, validation_windows=64)
    trainer = replace(settings.trainer, max_steps=12, max_minutes=None, validate_every=12)
    with pytest.raises(dnasm.errors.BaselineNotBeaten):
        pretrain.run(replace(settings, data=data, trainer=trainer, quiet=True))
    assert "Markov" in capsys.readouterr().out


# The plan


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    tmp_path: Path, patchy_fasta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write_config(tmp_path / "c.yaml", patchy_fasta, max_steps=7)
    out = tmp_path / "run"
    assert cli.main(["pretrain", "--config", str(settings), "--out", str(out), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "70,000 bases to train on (100.0% of the windows), 30,000 for validation (400 windows)" in text
    assert f"steps    7 ({7 * 16 * WINDOW:,} tokens)" in text
    assert "parameters" in text
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"c.yaml"}


def test_a_model_of_billions_is_planned_without_memory(
    tmp_path: Path, patchy_fasta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "check_space", lambda folder, needed: None)
    settings = read_config(write_config(tmp_path / "c.yaml", patchy_fasta, max_steps=1), "--out", str(tmp_path / "run"))
    model = replace(presets.preset("h3-2.7b"), vocabulary="dna")
    assert pretrain.make_plan(replace(settings, model=model)).parameters > 2e9


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.max-length", "32"], ["data.window is 64", "model.max_length = 32"]),
        (["--data.window", "1"], ["data.window"]),
        (["--data.batch-size", "0"], ["data.batch_size"]),
        (["--data.num-workers", "-1"], ["data.num_workers"]),
        (["--optim.lr", "0"], ["optim.lr"]),
        (["--optim.clip-norm", "0"], ["optim.clip_norm"]),
        (["--trainer.max-steps", "0"], ["trainer.max_steps"]),
        (["--trainer.validate-every", "0"], ["trainer.validate_every"]),
        (["--trainer.patience", "0"], ["trainer.patience"]),
        (["--trainer.markov-orders", "13"], ["trainer.markov_orders"]),
        (["--trainer.require-below-markov", "--trainer.markov-orders", "4"], ["require_below_markov", "4"]),
        (["--trainer.devices", "2", "--device", "cpu"], ["trainer.devices"]),
        (["--model.vocabulary", "gpt2"], ["model.vocabulary"]),
        (["--model.num-layers", "0"], ["at least 1"]),
        (["--device", "tpu"], ["tpu"]),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    flags: list[str], words: list[str], tmp_path: Path, patchy_fasta: Path
) -> None:
    settings = write_config(tmp_path / "c.yaml", patchy_fasta, max_steps=1)
    with pytest.raises(ConfigError) as caught:
        pretrain.run(read_config(settings, "--out", str(tmp_path / "run"), *flags))
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_no_validation_is_refused(tmp_path: Path, patchy_fasta: Path) -> None:
    settings = write_config(tmp_path / "c.yaml", patchy_fasta, max_steps=1)
    genomes = f"[{{path: '{patchy_fasta}'}}]"
    with pytest.raises(ConfigError, match="validation"):
        pretrain.run(read_config(settings, "--out", str(tmp_path / "run"), "--data.genomes", genomes))


def test_an_existing_folder_is_replaced_only_if_it_is_a_run(tmp_path: Path, patchy_fasta: Path) -> None:
    settings = write_config(tmp_path / "c.yaml", patchy_fasta, max_steps=1)
    foreign, earlier = tmp_path / "thesis", tmp_path / "run"
    for folder, name in ((foreign, "thesis.tex"), (earlier, "config.yaml")):
        folder.mkdir()
        (folder / name).write_text("precious")
    for folder, flags in ((foreign, []), (foreign, ["--force"]), (earlier, [])):
        with pytest.raises(OutputError, match=str(folder)):
            pretrain.run(read_config(settings, "--out", str(folder), *flags))
        assert next(folder.iterdir()).read_text() == "precious"
    pretrain.make_plan(read_config(settings, "--out", str(earlier), "--force"))
    assert (earlier / "config.yaml").read_text() == "precious"  # a plan removes nothing yet


def test_an_empty_folder_may_be_filled(tmp_path: Path, patchy_fasta: Path) -> None:
    settings = write_config(tmp_path / "c.yaml", patchy_fasta, max_steps=1)
    (tmp_path / "run").mkdir()
    pretrain.make_plan(read_config(settings, "--out", str(tmp_path / "run")))


def test_a_full_disk_is_seen_before_training(
    tmp_path: Path, patchy_fasta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_config(write_config(tmp_path / "c.yaml", patchy_fasta, max_steps=1), "--out", str(tmp_path / "run"))
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    with pytest.raises(OutputError, match="GB free"):
        pretrain.run(settings)
    assert not (tmp_path / "run").exists()


def test_a_missing_genome_is_named(tmp_path: Path) -> None:
    settings = write_config(tmp_path / "c.yaml", tmp_path / "none.fa", max_steps=1)
    with pytest.raises(InputError, match=r"none\.fa"):
        pretrain.run(read_config(settings, "--out", str(tmp_path / "run")))


# Baselines


@pytest.fixture
def two_genomes(tmp_path: Path) -> Corpus:
    genomes = []
    for number, letters in enumerate((patchy_letters(5000, 1), "AACAGT" * 500)):
        path = write_fasta(tmp_path / f"g{number}.fa", {"train": letters[:2000], "held": letters[2000:]})
        genomes.append(GenomeConfig(path=str(path), validation=["held"]))
    return Corpus(DataConfig(genomes=genomes, window=50, validation_windows=30))


def test_each_genome_has_markov_models_of_its_own(two_genomes: Corpus) -> None:
    rows = {(row.genome, row.order, row.strands): row for row in markov_rows(two_genomes, ["a", "b"], 2)}
    for number, name in enumerate("ab"):
        genome = two_genomes.genomes[number]
        model = MarkovModel.fit([genome.tokens("train", 0, genome.contigs["train"])], 2, both_strands=True)
        bits, count = np.zeros(3), 0
        for which, target in two_genomes.targets():
            if which == number:
                start = max(0, target.start - 2)
                tokens = genome.tokens("held", start, target.end)
                log_p = model.log_probs(tokens, target.start - start)
                bits, count = bits - log_p.sum(1) / np.log(2), count + log_p.shape[1]
        for order in range(3):
            row = rows[name, order, "both"]
            assert row.targets == count
            assert row.bits_per_base == pytest.approx(bits[order] / count, rel=1e-9)
    together = rows["all", 1, "both"]
    a, b = rows["a", 1, "both"], rows["b", 1, "both"]
    assert together.targets == a.targets + b.targets
    expected = (a.bits_per_base * a.targets + b.bits_per_base * b.targets) / together.targets
    assert together.bits_per_base == pytest.approx(expected)


def test_the_best_baseline_is_over_all_targets(two_genomes: Corpus) -> None:
    rows = markov_rows(two_genomes, ["a", "b"], 2)
    best = best_baseline(rows)
    assert best.genome == "all"
    assert best.bits_per_base == min(row.bits_per_base for row in rows if row.genome == "all")


def test_the_table_shows_every_order_beside_the_model(two_genomes: Corpus) -> None:
    rows = markov_rows(two_genomes, ["a", "b"], 2)
    text = comparison_text(rows, ["a", "b"], ValidationResult(1.0, 30, [0.5, 2.0], [20, 10]), 1234)
    lines = text.splitlines()
    assert [line.split()[0:2] for line in lines[3:6]] == [["order", "0"], ["order", "1"], ["order", "2"]]
    assert lines[1].split() == ["targets", "30", "20", "10"]
    assert lines[-1].split() == ["this", "model,", "step", "1,234", "1.4427", "0.7213", "2.8854"]


def test_baselines_can_be_left_out(two_genomes: Corpus) -> None:
    assert markov_rows(two_genomes, ["a", "b"], -1) == []
    text = comparison_text([], ["a"], ValidationResult(1.0, 30, [1.0], [30]), 5)
    assert "Markov" not in text


def test_a_compiler_that_fails_is_named_with_the_way_out(
    patchy_fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise torch._dynamo.exc.TorchDynamoException("no C compiler was found\nand much more")

    monkeypatch.setattr("dnasm.training.fit.fit", broken)
    config = write_config(tmp_path / "run.yaml", patchy_fasta, max_steps=4, markov_orders=-1)
    assert cli.main(["pretrain", "--config", str(config), "--quiet", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "could not be compiled (no C compiler was found): set trainer.compile false" in said
    assert "much more" not in said
