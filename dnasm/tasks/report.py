"""`dnasm report`: a run directory and a score table -> one self-contained HTML page."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import dnasm
from dnasm.config import ReportConfig
from dnasm.errors import ConfigError
from dnasm.report.logo import glyph_symbols
from dnasm.report.page import Fact, FigureBlock, LabelBlock, MarkovRow, MarkovTable, Page, ScoreBlock, render
from dnasm.report.plots import plot_loss, plot_position_loss
from dnasm.tasks.baseline_table import ALL
from dnasm.tasks.new_file import check_new_file, new_file, refuse_same_file
from dnasm.tasks.report_inputs import Run, read_json, read_run, read_scores
from dnasm.tasks.report_labels import label_block, read_evaluation, read_labels
from dnasm.tasks.report_logos import find_model
from dnasm.tasks.report_scores import find_genome, score_block
from dnasm.tasks.report_tracks import track_figures


def run(config: ReportConfig) -> None:
    """Write a report.

    Raises:
        InputError: If the run or the scores cannot be read.
        OutputError: If the page exists or cannot be written.
    """
    check_new_file(config.out, (".html", ".htm"), force=config.force)
    refuse_same_file(config.out, *(name for name in (config.scores, config.labels, *config.tracks) if name is not None))
    if config.run is None and config.scores is None and not config.tracks:
        raise ConfigError("there is nothing to report: give --run, --scores or --tracks")
    made = read_run(config.run) if config.run is not None else _without_run(config)
    scores, labels, notes = _scores(config)
    tracks = [figure for number, name in enumerate(config.tracks) for figure in track_figures(name, number)]
    page = make_page(made, scores, notes)
    letters = glyph_symbols() if any(block.logo_top for block in scores) else ""
    text = render(replace(page, labels=labels, tracks=tracks, letters=letters))
    with new_file(config.out) as draft:
        draft.write_text(text, encoding="utf-8")
    if not config.quiet:
        print(f"dnasm report: {config.out}", file=sys.stderr)


def _without_run(config: ReportConfig) -> Run:
    """Show the record of the score table or track in place of a run's."""
    path = Path(config.scores or config.tracks[0])
    record = Path(f"{path}.run.json")
    return Run(path, read_json(record) if record.is_file() else {}, {}, {}, {}, trained=False)


def _scores(config: ReportConfig) -> tuple[list[ScoreBlock], LabelBlock | None, list[str]]:
    if config.scores is None:
        if config.labels is not None:
            raise ConfigError(f"--labels {config.labels} are of variants: give their --scores too")
        return [], None, []
    table = read_scores(config.scores)
    genome, why_none = find_genome(config.scores, config.genome)
    model, why_no_logo = find_model(config.scores, genome) if config.logos else (None, "")
    blocks = [score_block(method, rows, Path(config.scores).name, genome, model) for method, rows in table.items()]
    notes = [note for note in (why_none, why_no_logo) if note]
    labels = read_evaluation(config.scores)
    if config.labels is not None:
        truth = read_labels(config.labels, config.label_column, config.positive)
        labels = label_block(table, truth, Path(config.labels).name, genome)
    counts = blocks[0].counts
    unscored = {status: count for status, count in counts.items() if status != "ok"}
    if unscored:
        listed = ", ".join(f"{count:,} {status}" for status, count in unscored.items())
        notes.append(f"{sum(unscored.values()):,} of {sum(counts.values()):,} alleles have no score: {listed}.")
    return blocks, labels, notes


def make_page(made: Run, scores: Sequence[ScoreBlock], notes: Sequence[str] = ()) -> Page:
    """Put together what the page shows of a run."""
    counts: Mapping[str, Any] = made.record.get("counts", {})
    config: Mapping[str, Any] = made.record.get("config", {})
    tables = [table for name in _genomes(made) if (table := markov_table(made, name)) is not None]
    return Page(
        title=made.path.resolve().name,
        subtitle=_subtitle(config, counts),
        facts=_facts(made, scores),
        warnings=[*_warnings(made), *notes],
        figures=_figures(made),
        tables=tables if len(tables) != 2 else tables[:1],  # of a single genome, "all" says it all
        scores=scores,
        settings=flatten(config),
        versions={name: str(value) for name, value in made.record.get("versions", {}).items()},
        provenance=_provenance(made),
    )


def _subtitle(config: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    model = config.get("model", {})
    if not isinstance(model, Mapping):
        return f"scored with {model}"
    if not model:
        return ""
    parts = [
        f"{model.get('family', '?')}, {model.get('num_layers', '?')} layers of {model.get('d_model', '?')} channels",
        _counted(counts.get("parameters"), "parameters"),
        _counted(counts.get("steps"), "steps"),
        _counted(counts.get("tokens"), "bases read"),
        _duration(counts.get("training_seconds")),
    ]
    return " · ".join(part for part in parts if part)


def _counted(value: Any, what: str) -> str:
    return "" if value is None else f"{value:,} {what}"


def _duration(seconds: Any) -> str:
    if seconds is None:
        return ""
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds % 60:.0f} s"


def _facts(made: Run, scores: Sequence[ScoreBlock]) -> list[Fact]:
    facts = []
    ours, best = _model_bits(made, ALL), _best_markov(made)
    if ours is not None:
        step = made.record.get("counts", {}).get("best_step")
        facts.append(
            Fact("Validation loss", f"{ours:.4f}", f"bits per base, step {step:,}" if step else "bits per base")
        )
    if best is not None:
        facts.append(Fact("Best Markov model", f"{best['bits_per_base']:.4f}", _markov_name(best)))
    if ours is not None and best is not None:
        gain = best["bits_per_base"] - ours
        note = "bits below the best Markov model" if gain >= 0 else "bits above the best Markov model"
        facts.append(Fact("Difference", f"{abs(gain):.4f}", note))
    if scores:
        counts = scores[0].counts
        facts.append(Fact("Variants scored", f"{counts.get('ok', 0):,}", f"of {sum(counts.values()):,} alleles"))
    return facts


def _model_bits(made: Run, genome: str) -> float | None:
    values = [row["bits_per_base"] for row in made.baselines.get("model", []) if row["genome"] == genome]
    if values and values[0] is not None:
        return float(values[0])
    column = made.metrics.get("val_bits_per_base", np.empty(0))
    known = column[np.isfinite(column)]
    return float(known.min()) if known.size and genome == ALL else None


def _best_markov(made: Run) -> dict[str, Any] | None:
    rows = [row for row in made.baselines.get("markov", []) if row["genome"] == ALL]
    return min(rows, key=lambda row: float(row["bits_per_base"]), default=None)


def _markov_name(row: Mapping[str, Any]) -> str:
    return f"order {row['order']}, {row['strands']} strand{'s' if row['strands'] == 'both' else ''}"


def _warnings(made: Run) -> list[str]:
    found = []
    ours, best = _model_bits(made, ALL), _best_markov(made)
    if ours is not None and best is not None and ours >= best["bits_per_base"]:
        found.append(
            "The model is not better than the best Markov model on the same bases: it has learnt nothing that short "
            "contexts do not say. Train longer, or on more sequence."
        )
    if made.trained and made.record.get("counts", {}).get("state") != "done":
        found.append("The run has not ended: what is missing here was not written yet.")
    git = made.record.get("git") or {}
    if git.get("changed"):
        found.append("The run was made from a checkout with uncommitted changes, so its commit does not tell all.")
    return found


def _figures(made: Run) -> list[FigureBlock]:
    blocks = []
    steps = made.metrics.get("step", np.empty(0))
    train, validation = (made.metrics.get(f"{name}_bits_per_base", np.empty(0)) for name in ("train", "val"))
    if np.isfinite(train).any():
        seen, checked = np.isfinite(train), np.isfinite(validation)
        best = _best_markov(made)
        label = None if best is None else (f"best Markov model ({_markov_name(best)})", float(best["bits_per_base"]))
        lines = [float(row["bits_per_base"]) for row in made.baselines.get("markov", []) if row["genome"] == ALL]
        caption = "A model that knows nothing has 2 bits."
        if lines:
            caption += " The faint lines are the other Markov models, on the validation's bases."
        blocks.append(
            FigureBlock(
                "Loss",
                plot_loss((steps[seen], train[seen]), (steps[checked], validation[checked]), lines, label),
                caption,
            )
        )
    if made.positions:
        columns = [made.positions[name] for name in ("start", "end", "bits_per_base", "targets")]
        of_place = "bases read before"
        shown = "Further right the model has read more. A curve that falls says that it uses the longer context."
        model = made.record.get("config", {}).get("model", {})
        if isinstance(model, Mapping) and (model.get("bidirectional") or model.get("equivariant")):
            of_place = "place in the window"
            shown = "The model sees both sides of a masked base, so it has read the whole window wherever the base is."
        blocks.append(FigureBlock("Loss by place in the window", plot_position_loss(*columns, label=of_place), shown))
    return blocks


def _genomes(made: Run) -> list[str]:
    return list(dict.fromkeys(row["genome"] for row in made.baselines.get("markov", [])))


def markov_table(made: Run, genome: str) -> MarkovTable | None:
    """Lay out Markov models of every order beside the trained one, on one genome's targets."""
    rows = [row for row in made.baselines.get("markov", []) if row["genome"] == genome]
    if not rows:
        return None
    value = {(row["order"], row["strands"]): row for row in rows}
    listed = []
    for order in sorted({row["order"] for row in rows}):
        pair = [value.get((order, strands)) for strands in ("one", "both")]
        counted = next((f"{row['counted']:,}" for row in pair if row is not None), "")
        cells = [None if row is None else float(row["bits_per_base"]) for row in pair]
        listed.append(MarkovRow(f"order {order}", cells, counted))
    ours = _model_bits(made, genome)
    if ours is not None and not math.isnan(ours):
        listed.append(MarkovRow("this model", [ours], ours=True))
    return MarkovTable(genome, int(rows[0]["targets"]), listed)


def flatten(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Lay out nested settings as sections of names and values."""
    sections: dict[str, dict[str, str]] = {"general": {}}
    for name, value in config.items():
        if isinstance(value, Mapping):
            sections[name] = _leaves(value)
        else:
            sections["general"][name] = _shown(value)
    return {name: values for name, values in sections.items() if values}


def _leaves(value: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, entry in value.items():
        if isinstance(entry, list) and entry and all(isinstance(item, Mapping) for item in entry):
            for number, item in enumerate(entry):
                found |= {f"{name}[{number}].{key}": text for key, text in _leaves(item).items()}
        else:
            found[name] = _shown(entry)
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _provenance(made: Run) -> dict[str, str]:
    record = made.record
    git = record.get("git") or {}
    inputs = {
        f"input {number}": f"{item.get('path')}, {_hash(item)}"
        for number, item in enumerate(record.get("inputs", []), 1)
    }
    known = {
        "run": str(made.path),
        "command": " ".join(map(str, record.get("argv", []))),
        "started": str(record.get("started", "")),
        "commit": str(git.get("commit", "")),
        "seed": _shown(record.get("seed")),
        **inputs,
        "page made by": f"dnasm {dnasm.__version__}",
    }
    return {name: value for name, value in known.items() if value}


def _hash(item: Mapping[str, Any]) -> str:
    """Name a file's hash by its first letters, which tell files apart as well as all of them."""
    return next((f"sha256 {str(value)[:16]}" for key, value in item.items() if key.startswith("sha256")), "no hash")
