"""Scores of a run's models: on its held-out split with TF-IDF beside them, or on any labelled file."""

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metakd.config.settings import Settings
from metakd.data.dataset import load_dataset
from metakd.data.examples import read_examples
from metakd.data.labels import several_by
from metakd.data.schema import Example, folder_name, several_labels
from metakd.data.sources import is_hub_id
from metakd.data.splits import leaks, of_domain
from metakd.evaluation.metrics import Predictions, accuracy_of_kept, score
from metakd.evaluation.predictions import (
    Stores,
    predict_by_models,
    predict_by_tfidf,
    transfer_sample_size,
    with_latencies,
    write_predictions,
)
from metakd.evaluation.tables import OVER_ALL, markdown_table
from metakd.evaluation.thresholds import as_entry
from metakd.inference.long_texts import load_reading
from metakd.methods import BASELINE
from metakd.pipeline.corpus import describe
from metakd.pipeline.readings import rows_to_decide_on, write_readings, write_temperatures, write_thresholds
from metakd.pipeline.rechecks import check_again
from metakd.runs.folders import CORPUS_FILE, PREDICTIONS_FILE, RESULTS_FILE, SCORE_FILES, finished_steps
from metakd.runs.run import Run
from metakd.utils import distributed
from metakd.utils.artifacts import (
    MANIFEST,
    read_run,
    remedy,
    verified_manifest,
    write_json,
    write_manifest,
    write_text,
)
from metakd.utils.console import notice
from metakd.utils.errors import InputError, listed, raise_faults
from metakd.utils.hardware import environment
from metakd.utils.locks import run_lock


def evaluate(run: Run) -> dict[str, Any]:
    """The scores of teacher, students and baselines on test (or dev), written into the run's folder.

    The manifest of the whole run is written last.

    Args:
        run: The run, with all its students.

    Returns:
        The content of results.json.

    Raises:
        InputError: A domain cannot be scored, a model is missing, or another process uses the folder.
    """
    with run_lock(run.folder):
        return distributed.on_main(lambda: _evaluate(run))


def _evaluate(run: Run) -> dict[str, Any]:
    started, split, description = time.perf_counter(), check_scorable(run), run.description()
    if split == "dev":
        notice("there is no test split, so scores are on dev: do not report them if you choose by them")
    examples, fleets = run.data.splits[split], _fleets(run.folder, description, run.data.domains)
    if {*run.data.domains} - {*fleets["student"]}:
        (run.folder / MANIFEST).unlink(missing_ok=True)
    _refuse_missing(run.folder, fleets, run.data.domains)
    check_again(run)
    stores: Stores = {}
    calibration, dev = write_temperatures(run, fleets["student"], stores), rows_to_decide_on(run)
    thresholds = write_thresholds(run, fleets, stores)
    if split == "dev" and any(each.of_texts for fleet in thresholds.values() for each in fleet.values()):
        notice("thresholds are chosen on dev, which is scored too; those of each text are chosen without it")
    if calibration and split == "dev":
        notice("dev decides how sure students are, and is scored too; `calibration` in results.json is cross-fitted")
    if write_readings(run, fleets, stores) and split == "dev":
        notice(
            "dev decides how far long texts are read, and is scored as well: --long-texts mean chooses nothing by it"
        )
    leaked = {e.id for e in leaks(run.data.splits).get(split, [])}
    classes = description.get("classes")
    all_predictions = predict_by_models(fleets, run.data.labels, examples, stores, classes, thresholds)
    tfidf = predict_by_tfidf(run.data.gold, run.data.labels, examples, run.settings.seed, classes, dev)
    all_predictions["tfidf"] = tfidf.predictions
    calibration |= as_entry({**thresholds, "tfidf": tfidf.thresholds} if thresholds else {})
    all_predictions = with_latencies(all_predictions, fleets, examples, run.settings.seed, tfidf.timed)
    scores = score_models(all_predictions, description, examples, leaked)
    (run.folder / MANIFEST).unlink(missing_ok=True)
    write_predictions(run.folder / PREDICTIONS_FILE, all_predictions, examples, run.data.labels)
    results = _results(scores, split, description) | {"leaked_rows": len(leaked)}
    results |= {"calibration": calibration}
    sample = transfer_sample_size(len(run.data.domains)) if tfidf.transfer else 0
    results |= {"transfer": tfidf.transfer, "transfer_examples": sample}
    manifests = finished_steps(run.folder, description["settings"])
    seconds = {name: manifest["seconds"] for name, manifest in manifests.items()}
    results["seconds"] = seconds | {"evaluate": round(time.perf_counter() - started, 1)}
    write_json(run.folder / CORPUS_FILE, describe(run, examples, fleets["student"]))
    write_json(run.folder / RESULTS_FILE, results)
    write_text(run.folder / "results.md", markdown_table(results))
    steps = {name: manifest["fingerprint"] for name, manifest in manifests.items()}
    facts = {name: results[name] for name in ("run", "seconds", "environment", "calibration")}
    write_manifest(run.folder, {"step": "run", "steps": steps, **facts}, SCORE_FILES)
    return results


def _refuse_missing(folder: Path, fleets: Mapping[str, Mapping[str, Path]], domains: Sequence[str]) -> None:
    """Raise InputError if a domain of the run has no student; a notice if it has no baseline."""
    for name, fleet in fleets.items():
        if missing := listed([domain for domain in domains if domain not in fleet]):
            fault = f"{name} is missing for {missing}; to train what is missing, {remedy(folder)}"
            if name == "student":
                raise InputError(fault)
            notice(f"{fault}. Scoring continues without it")


def check_scorable(run: Run) -> str:
    """The split to score on; InputError if there is none, or if a domain has no rows in it."""
    split = run.data.scored_split
    if split is None:
        raise InputError(f"{run.data.name}: no test or dev split to score on; add dev.jsonl")
    scored = {e.domain for e in run.data.splits[split]}
    if empty := [domain for domain in run.data.domains if domain not in scored]:
        raise InputError(
            f"{run.data.name}: {split} has no rows of {', '.join(empty)}; add some (of a single file, --cut "
            f"decides how much goes into {split}), pass {split} as a separate file, or drop the domain"
        )
    return split


def evaluate_file(
    folder: Path, data: Path, output: Path, *, columns: Mapping[str, str] | None = None, encoding: str = "utf-8"
) -> dict[str, Any]:
    """Score the teacher and each domain's student of a finished run on a labelled file, and write the scores.

    Domains that are new to the run are scored by the teacher only, and left out of all averages unless the file has no
    others. Averages are also computed without the rows whose text is in the run's training data.

    Args:
        folder: The run's folder.
        data: The labelled file.
        output: The JSON file to write.
        columns: The column of each field with another name.
        encoding: Encoding of the file.

    Returns:
        What is written to output.

    Raises:
        InputError: The run has no teacher, or the file cannot be read or has other labels.
    """
    description = read_run(folder)
    settings = description["settings"]
    several = several_by(settings.get("label_columns", ()), settings.get("label_separator", ""))
    examples = read_examples(data, columns=columns, encoding=encoding, several=several)
    _check_fits(data, examples, description)
    fleets = _fleets(folder, description, sorted(domains := {e.domain for e in examples}))
    _refuse_missing(folder, fleets, [domain for domain in description["domains"] if domain in domains])
    if None in map(load_reading, fleets["student"].values()):
        raise InputError(f"{folder}: not scored, which decides what students answer; {remedy(folder, 'evaluate')}")
    leaked = {e.id for e in leaks({"train": _training_rows(description), "test": examples}).get("test", [])}
    classes = description.get("classes")
    all_predictions = predict_by_models(fleets, description["labels"], examples, classes=classes)
    all_predictions = with_latencies(all_predictions, fleets, examples, description["settings"]["seed"])
    scores = score_models(all_predictions, description, examples, leaked)
    results = _results(scores, str(data), description) | {"leaked_rows": len(leaked)}
    write_json(output, results)
    return results


def _training_rows(description: Mapping[str, Any]) -> list[Example]:
    """The rows that models of a run have learnt from; none, with a notice, if its data is missing or has changed."""
    place, settings = description["data"], Settings.build(description["settings"])
    if place and (is_hub_id(place) or Path(place).exists()):
        with contextlib.suppress(InputError):
            dataset = load_dataset(place, settings.seed, **settings.reading())
            if dataset.fingerprint == description["data_fingerprint"]:
                return [*dataset.train, *dataset.unlabelled]
    place = place or "tables in memory"
    notice(f"the run's data ({place}) has changed or is missing, so rows that are also in it are not recognised")
    return []


def _check_fits(data: Path, examples: Sequence[Example], description: Mapping[str, Any]) -> None:
    """Raise InputError if the examples have other labels than the run; a notice if they have other domains."""
    known = ", ".join(description["labels"])
    unknown = sorted({label for e in examples for label in e.classes} - set(description["labels"]))
    faults = [f"label {label!r}: the run has only {known}" for label in unknown]
    several, in_run = several_labels(examples), description.get("several_labels", False)
    if several != in_run:
        kinds = ("one label", "several labels")
        faults.append(
            f"a text has {kinds[several]} here, and {kinds[in_run]} in the run; write labels as its data does"
        )
    if {e.text_pair is not None for e in examples} != {description["pairs"]}:
        faults.append(f"text_pair: the run's texts are {'pairs' if description['pairs'] else 'not pairs'}")
    raise_faults(str(data), faults)
    classes = description.get("classes", {})
    foreign = sum(not {*e.classes} <= {*classes.get(e.domain, description["labels"])} for e in examples)
    if foreign:
        notice(f"{data}: {foreign} rows have a label that their domain lacks in train, so no model can be right there")
    if unseen := sorted({e.domain for e in examples} - set(description["domains"])):
        all_new = len(unseen) == len({e.domain for e in examples})
        averages = "averaged, as the file has no other" if all_new else "left out of averages"
        notice(f"domains without a student, scored by the teacher only and {averages}: {', '.join(unseen)}")


def _fleets(folder: Path, description: Mapping[str, Any], domains: Sequence[str]) -> dict[str, dict[str, Path]]:
    """The folder of the finished model of each kind for each domain; InputError if there is no teacher."""
    if verified_manifest(folder / "meta_teacher") is None:
        raise InputError(f"{folder}: no finished meta-teacher; {remedy(folder)}")
    fleets = {"meta_teacher": dict.fromkeys(domains, folder / "meta_teacher")}
    parents = {"student": "students"} | ({BASELINE: BASELINE} if description["settings"]["baseline"] else {})
    for name, parent in parents.items():
        paths = {domain: folder / parent / folder_name(domain) for domain in domains}
        fleets[name] = {domain: path for domain, path in paths.items() if verified_manifest(path) is not None}
    if description["settings"]["method"] == BASELINE:
        fleets[BASELINE] = fleets["student"]
    return fleets


def score_models(
    all_predictions: Mapping[str, Mapping[str, Predictions]],
    description: Mapping[str, Any],
    examples: Sequence[Example],
    leaked: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """For each kind of model: scores, sizes and latencies by domain and on average over the domains with students.

    `leaked` are ids of examples that are also in the training data; the average is also computed without them.
    """
    labels = description["labels"]
    averaged = set(all_predictions.get("student", {})) or set(all_predictions["meta_teacher"])
    models = {}
    for name, predictions in all_predictions.items():
        if averaged <= set(predictions):
            scores = score(predictions, averaged, len(labels))
            _add_costs(scores, {domain: p.costs for domain, p in predictions.items()}, averaged)
            over = [predictions[d].costs[OVER_ALL] for d in sorted(averaged) if OVER_ALL in predictions[d].costs]
            if len(over) == len(averaged):
                scores["average"][OVER_ALL] = float(np.mean(over))
            if leaked:
                kept = {d: np.array([e.id not in leaked for e in of_domain(examples, d)]) for d in averaged}
                averaged_predictions = {domain: predictions[domain] for domain in averaged}
                scores["average"]["accuracy_without_leaks"] = accuracy_of_kept(averaged_predictions, kept)
            models[name] = scores
    return models


def _add_costs(scores: dict[str, Any], by_domain: Mapping[str, Mapping[str, Any]], averaged: Collection[str]) -> None:
    """Add sizes and latencies to the scores of each domain, and their plain means over those `averaged`."""
    for domain, domain_costs in by_domain.items():
        scores["domains"][domain] |= domain_costs
    costs = {domain: by_domain[domain] for domain in by_domain if domain in averaged}
    for name in ("parameters", "bytes"):
        scores["average"][name] = round(float(np.mean([each[name] for each in costs.values()])))
    if all("windows" in each for each in costs.values()):
        scores["average"]["windows"] = _mean([each["windows"] for each in costs.values()])
    latencies = [each["latency_ms"] for each in costs.values()]
    means: dict[str, Any] = {
        key: _mean([ms[key] for ms in latencies]) for key in ("median", "p95", "mean") if key in latencies[0]
    }
    if "by_windows" in latencies[0]:
        means["by_windows"] = {n: _mean([ms["by_windows"][n] for ms in latencies]) for n in latencies[0]["by_windows"]}
    busy = {"busy": True} if any(ms.get("busy") for ms in latencies) else {}
    scores["average"]["latency_ms"] = means | busy


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 3)


def _results(models: dict[str, dict[str, Any]], split: str, description: Mapping[str, Any]) -> dict[str, Any]:
    """The content of results.json."""
    domains = sorted({domain for scores in models.values() for domain in scores["domains"]})
    return {
        "schema": 1,
        "split": split,
        "average": {name: scores["average"] for name, scores in models.items()},
        "domains": {
            domain: {name: scores["domains"][domain] for name, scores in models.items() if domain in scores["domains"]}
            for domain in domains
        },
        "run": dict(description),
        "environment": environment(),
    }
