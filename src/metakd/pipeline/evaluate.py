"""Score a run's models: on its own held-out split, beside TF-IDF, or on any labelled file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metakd.config.settings import Settings
from metakd.data.dataset import folder_name, load_dataset
from metakd.data.examples import read_examples
from metakd.data.schema import Example
from metakd.data.splits import leaks, of_domain
from metakd.evaluation.metrics import Predictions, accuracy_of_kept, score
from metakd.evaluation.predictions import AllPredictions, predict_with_models, predict_with_tfidf, transfer_sample_size
from metakd.evaluation.tables import markdown_table
from metakd.methods import BASELINE
from metakd.pipeline.corpus import describe
from metakd.runs.run import CORPUS_FILE, PREDICTIONS_FILE, Run
from metakd.utils import distributed
from metakd.utils.artifacts import MANIFEST, read_manifest, read_run, read_whole, seal, write_json, write_text
from metakd.utils.console import notice
from metakd.utils.environment import environment
from metakd.utils.errors import InputError
from metakd.utils.locks import run_lock

SCORED = ("results.json", "results.md", PREDICTIONS_FILE, CORPUS_FILE)  # what the manifest of a whole run vouches for


def evaluate(run: Run) -> dict[str, Any]:
    """Score teacher, students and rivals on test (or dev), and write what was found into the run's folder.

    Last of all comes the manifest of the whole run.
    """
    return distributed.on_main(lambda: _evaluate(run))


def _evaluate(run: Run) -> dict[str, Any]:
    with run_lock(run.folder):
        results = _score(run)
        steps = {name: manifest["fingerprint"] for name, manifest in finished_steps(run.folder).items()}
        facts = {name: results[name] for name in ("run", "seconds", "environment")}
        seal(run.folder, {"step": "run", "steps": steps, **facts}, SCORED)
    return results


def _score(run: Run) -> dict[str, Any]:
    started = time.perf_counter()
    split = check_scorable(run)
    if split == "dev":
        notice("there is no test split: scores are on dev, so choose nothing by them that you then report")
    examples = run.data.splits[split]
    fleets = _fleets(run.folder, run.description(), run.data.domains)
    for name, fleet in fleets.items():
        missing = ", ".join(domain for domain in run.data.domains if domain not in fleet)
        if missing:
            message = (
                f"{name} is missing for {missing}; `metakd run --resume --output {run.folder}` trains what is missing"
            )
            if name == "student":
                (run.folder / MANIFEST).unlink(missing_ok=True)
                raise InputError(message)
            notice(f"{message}. Scores go on without it")
    leaked = {e.id for e in leaks(run.data.splits).get(split, [])}
    all_predictions = predict_with_models(fleets, run.data.labels, examples)
    tfidf, transfer = predict_with_tfidf(run.data.train, run.data.labels, examples, run.settings.seed)
    all_predictions.add("tfidf", tfidf)
    scored = score_models(all_predictions, run.description(), examples, leaked)
    (run.folder / MANIFEST).unlink(missing_ok=True)
    all_predictions.write(run.folder / PREDICTIONS_FILE, examples, run.data.labels)
    results = _results(scored, split, run.description()) | {"leaked_rows": len(leaked)}
    results |= {"transfer": transfer, "transfer_examples": transfer_sample_size(len(run.data.domains))}
    results["seconds"] = _seconds(run.folder) | {"evaluate": round(time.perf_counter() - started, 1)}
    write_json(run.folder / CORPUS_FILE, describe(run, examples, fleets["student"]))
    write_json(run.folder / "results.json", results)
    write_text(run.folder / "results.md", markdown_table(results))
    return results


def check_scorable(run: Run) -> str:
    """The split that results will be on; InputError where there is none, or where a domain has no rows in it."""
    split = run.data.scored_split
    if split is None:
        raise InputError(f"{run.data.name}: neither test nor dev, so there is nothing to score on; add dev.jsonl")
    scored = {e.domain for e in run.data.splits[split]}
    empty = [domain for domain in run.data.domains if domain not in scored]
    if empty:
        raise InputError(
            f"{run.data.name}: {split} has no rows of {', '.join(empty)}; add some (where metakd cuts one file, "
            f"about ten rows of each label give {split} one), hand over {split} as its own file, or drop the domain"
        )
    return split


def evaluate_file(
    folder: Path, data: Path, output: Path, *, columns: Mapping[str, str] | None = None, encoding: str = "utf-8"
) -> dict[str, Any]:
    """Score the teacher and each domain's student of a finished run on a labelled file, and write the scores.

    A domain that the run does not know is scored by the teacher alone, and left out of all averages but where the file
    has no other. Averages are also given without the rows whose text the run has learnt from.
    """
    described = read_run(folder)
    examples = read_examples(data, columns=columns, encoding=encoding)
    _check_fits(data, examples, described)
    domains = sorted({e.domain for e in examples})
    leaked = {e.id for e in leaks({"train": _learnt_from(described), "test": examples}).get("test", [])}
    all_predictions = predict_with_models(_fleets(folder, described, domains), described["labels"], examples)
    results = _results(score_models(all_predictions, described, examples, leaked), str(data), described)
    results["leaked_rows"] = len(leaked)
    write_json(output, results)
    return results


def _learnt_from(described: Mapping[str, Any]) -> list[Example]:
    """The rows that a run has learnt from; none, which is told, where its files are not here as they were."""
    place, settings = described["data"], Settings.build(described["settings"])
    if place and Path(place).exists():
        with contextlib.suppress(InputError):
            found = load_dataset(place, settings.seed, **settings.reading())
            if found.fingerprint == described["data_fingerprint"]:
                return found.train
    data = place or "tables in memory"
    notice(f"the run's data ({data}) is not here as it was: rows that it has learnt from are counted, and not told")
    return []


def _check_fits(data: Path, examples: Sequence[Example], described: Mapping[str, Any]) -> None:
    known = ", ".join(described["labels"])
    strange = sorted({e.label for e in examples} - set(described["labels"]))
    faults = [f"label {label!r}: the run knows only {known}" for label in strange]
    if {e.text_pair is not None for e in examples} != {described["pairs"]}:
        faults.append(f"text_pair: the run learnt from {'pairs of texts' if described['pairs'] else 'single texts'}")
    if faults:
        raise InputError.collect(str(data), faults)
    unseen = sorted({e.domain for e in examples} - set(described["domains"]))
    if unseen:
        all_new = len(unseen) == len({e.domain for e in examples})
        averages = "averaged, as the file has no other" if all_new else "left out of averages"
        notice(f"domains without a student, scored by the teacher alone and {averages}: {', '.join(unseen)}")


def _fleets(folder: Path, described: Mapping[str, Any], domains: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Folder of the finished model of each kind for each domain; InputError where there is not even a teacher."""
    if read_whole(folder / "meta_teacher") is None:
        raise InputError(f"{folder}: no finished meta-teacher; `metakd run --resume --output {folder}` goes on")
    fleets = {"meta_teacher": dict.fromkeys(domains, folder / "meta_teacher")}
    parents = {"student": "students"} | ({BASELINE: BASELINE} if described["settings"]["baseline"] else {})
    for name, parent in parents.items():
        found = {domain: folder / parent / folder_name(domain) for domain in domains}
        fleets[name] = {domain: path for domain, path in found.items() if read_whole(path) is not None}
    if described["settings"]["method"] == BASELINE:
        fleets[BASELINE] = fleets["student"]
    return fleets


def score_models(
    all_predictions: AllPredictions,
    described: Mapping[str, Any],
    examples: Sequence[Example],
    leaked: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """For each kind of model: scores, sizes and latencies by domain and on average over the domains with students.

    `leaked` are ids of examples that the models have learnt from; the average is also given without them.
    """
    labels, settings = described["labels"], described["settings"]
    averaged = set(all_predictions.predictions.get("student", {})) or set(all_predictions.predictions["meta_teacher"])
    scored = {}
    for name, predictions in all_predictions.predictions.items():
        if averaged <= set(predictions):
            found = score(predictions, averaged, len(labels), settings["bootstrap"], settings["seed"])
            found = _joined(found, all_predictions.costs[name])
            scored[name] = found | _without_leaks(found, predictions, averaged, examples, leaked)
    return scored


def _without_leaks(
    found: dict[str, Any],
    predictions: Mapping[str, Predictions],
    averaged: Collection[str],
    examples: Sequence[Example],
    leaked: Collection[str],
) -> dict[str, Any]:
    """The average with `accuracy_without_leaks` in it, where there are leaks."""
    if not leaked:
        return {}
    own = {domain: predictions[domain] for domain in averaged}
    kept = {domain: np.array([e.id not in leaked for e in of_domain(examples, domain)]) for domain in own}
    return {"average": found["average"] | {"accuracy_without_leaks": accuracy_of_kept(own, kept)}}


def _joined(scores: dict[str, Any], facts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Scores with sizes and latencies beside them; on average, both are plain means over domains."""
    for domain, found in facts.items():
        scores["domains"][domain] |= found
    every = list(facts.values())
    scores["average"] |= {
        "parameters": round(float(np.mean([f["parameters"] for f in every]))),
        "bytes": round(float(np.mean([f["bytes"] for f in every]))),
        "latency_ms": {
            key: round(float(np.mean([f["latency_ms"][key] for f in every])), 3) for key in ("median", "p95")
        },
    }
    return scores


def _results(scored: dict[str, dict[str, Any]], split: str, described: Mapping[str, Any]) -> dict[str, Any]:
    domains = sorted({domain for found in scored.values() for domain in found["domains"]})
    return {
        "schema": 1,
        "split": split,
        "average": {name: found["average"] for name, found in scored.items()},
        "domains": {
            domain: {name: found["domains"][domain] for name, found in scored.items() if domain in found["domains"]}
            for domain in domains
        },
        "run": dict(described),
        "environment": environment(),
    }


def _seconds(folder: Path) -> dict[str, float]:
    """How long each finished step took, by its folder."""
    return {name: manifest["seconds"] for name, manifest in finished_steps(folder).items()}


def finished_steps(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifests of a run's steps, by their folders."""
    manifests = sorted(folder.glob(f"*/{MANIFEST}")) + sorted(folder.glob(f"*/*/{MANIFEST}"))
    found = {path.parent.relative_to(folder).as_posix(): read_manifest(path.parent) for path in manifests}
    return {name: manifest for name, manifest in found.items() if manifest and "/." not in f"/{name}"}
