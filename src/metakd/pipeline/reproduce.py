"""Repeat a run from its manifest, and check that the result is the same, bit for bit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metakd.config.settings import Settings
from metakd.pipeline.run_all import run_all
from metakd.runs.folders import ADAPTER, CORPUS_FILE, PREDICTIONS_FILE, RESULTS_FILE, finished_steps
from metakd.runs.run import Run
from metakd.utils.artifacts import (
    MANIFEST,
    changed_code,
    read_manifest,
    read_run,
    remedy,
    verified_manifest,
)
from metakd.utils.errors import InputError, raise_faults
from metakd.utils.locks import run_lock

VOLATILE = ("started", "seconds", "environment", "latency_ms")  # when, how long and on what machine, not results
PLACES = ("run.data", "run.settings.unlabelled")  # in results.json; the rows there are compared by their fingerprints
WHOLE_FILES = (PREDICTIONS_FILE, CORPUS_FILE)  # results.md is a view of results.json, latencies included


class Reproduction(NamedTuple):
    """The differences between two runs by step or file, and between their machines and versions."""

    compared: list[str]
    differences: dict[str, list[str]]
    environments: list[str]


def reproduce(folder: Path, output: Path, data: Any = None, unlabelled: str | None = None) -> Reproduction:
    """Repeat the finished run of `folder` in `output`, and compare both; a stopped repetition continues.

    `data` is needed if the run's data was tables in memory, or has moved, and `unlabelled` if that has moved. Raises
    InputError if the run is not finished, or if its data or models have changed.
    """
    description = _description(folder)
    if folder.resolve() == output.resolve():
        raise InputError(f"--output {output}: is the run itself; choose another folder for the repetition")
    if data is None and description["data"] is None:
        raise InputError(f"{folder} was made from tables in memory: give the same rows as --data")
    if read_manifest(output) is not None:
        raise InputError(f"--output {output}: already has a finished run; delete it, or choose another folder")
    moved = {} if unlabelled is None else {"unlabelled": unlabelled}
    settings = Settings.build(description["settings"] | moved)
    run = Run.assemble(output, settings, description["data"] if data is None else data)
    run.check_folder()
    raise_faults(f"{folder} cannot be repeated", _other_sources(description, run.description()))
    with run_lock(output):
        run_all(run.begin())
    return compare(folder, output)


def _description(folder: Path) -> Mapping[str, Any]:
    """The description of a finished run; InputError if it is not finished or its files have changed."""
    read_run(folder)
    manifest = verified_manifest(folder)
    if manifest is None or manifest.get("step") != "run":
        raise InputError(f"{folder}: no finished run; to finish it, {remedy(folder)}")
    torn = [name for name in manifest["steps"] if name != "teacher_cache" and verified_manifest(folder / name) is None]
    if torn:
        raise InputError(f"{folder}: changed since the run was finished: {', '.join(torn)}")
    if changed := [step for name in manifest["steps"] for step in changed_code(read_manifest(folder / name) or {})]:
        code = f"metakd's code of {', '.join(dict.fromkeys(changed))} has changed since {folder} was made"
        raise InputError(f"{code}; repeat it with the version of metakd that its {MANIFEST} names")
    figures = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8")).get("calibration")
    if figures is None or (manifest["run"].get("several_labels") and "thresholds" not in figures):
        decided = "probabilities were calibrated" if figures is None else "thresholds were chosen"
        raise InputError(f"{folder}: scored before {decided}; {remedy(folder, 'evaluate')} first")
    return dict(manifest["run"])


def _other_sources(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How data and models of two descriptions differ."""
    faults = []
    if now["data_fingerprint"] != before["data_fingerprint"]:
        faults.append(f"data {now['data']}: not the rows of the run")
    if now.get("unlabelled_fingerprint") != before.get("unlabelled_fingerprint"):
        faults.append(f"unlabelled {now['settings']['unlabelled']}: not the rows of the run")
    for name, digests in before["models"].items():
        if changed := _changed(digests, now["models"][name]):
            faults.append(f"{name} {before['settings'][name]}: not the files of the run: {', '.join(changed)}")
    return faults


def _changed(one: Mapping[str, str], two: Mapping[str, str]) -> list[str]:
    """Names under which two tables of checksums differ."""
    return [name for name in sorted({*one, *two}) if one.get(name) != two.get(name)]


def compare(first: Path, second: Path) -> Reproduction:
    """The differences between two finished runs: files and manifests of steps, and results except times."""
    differences = {}
    steps = [finished_steps(folder, read_run(folder)["settings"]) for folder in (first, second)]
    for name in sorted({*steps[0], *steps[1]}):
        one, two = (manifests.get(name, {}) for manifests in steps)
        files = [_comparable(manifest.get("files", {})) for manifest in (one, two)]
        differences[name] = _changed(*files) + _unlike(one, two)
    for name in WHOLE_FILES:
        same = (first / name).read_bytes() == (second / name).read_bytes()
        differences[name] = [] if same else ["its bytes"]
    results = [json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8")) for folder in (first, second)]
    differences[RESULTS_FILE] = [path for path in _unlike(*results) if path not in PLACES]
    unlike = {name: paths for name, paths in differences.items() if paths}
    return Reproduction([*differences], unlike, _other_environments(first, second))


def _comparable(files: Mapping[str, str]) -> dict[str, str]:
    """Without a LoRA adapter's files: one names the folder of the base, and the weights have what the other has."""
    return {name: digest for name, digest in files.items() if not name.startswith(f"{ADAPTER}/")}


def _unlike(one: Any, two: Any, place: str = "") -> list[str]:
    """Paths at which two JSON values differ, except VOLATILE keys and checksums of files."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = [key for key in {**one, **two} if key not in (*VOLATILE, "files")]
        return [path for key in keys for path in _unlike(one.get(key), two.get(key), f"{place}.{key}".lstrip("."))]
    return [] if one == two else [place]


def _other_environments(first: Path, second: Path) -> list[str]:
    """Differences between versions or machines, on which bits may depend."""
    one, two = ((read_manifest(folder) or {})["environment"] for folder in (first, second))
    flat = [environment | environment["versions"] for environment in (one, two)]
    names = [name for name in flat[0] if name not in ("versions", "command")]
    return [f"{name}: {flat[0][name]}, now {flat[1].get(name)}" for name in names if flat[0][name] != flat[1].get(name)]
