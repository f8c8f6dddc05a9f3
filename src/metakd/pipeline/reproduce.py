"""Repeat a run from its manifest, and say whether it came out the same, bit for bit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metakd.config.settings import Settings
from metakd.pipeline.evaluate import finished_steps
from metakd.pipeline.run_all import run_all
from metakd.runs.folders import CORPUS_FILE, PREDICTIONS_FILE
from metakd.runs.run import Run
from metakd.utils.artifacts import read_manifest, read_run, verified_manifest
from metakd.utils.errors import InputError, raise_faults
from metakd.utils.locks import run_lock

VOLATILE = ("started", "seconds", "environment", "latency_ms")  # when, how long, on what: not what came out
WHOLE_FILES = (PREDICTIONS_FILE, CORPUS_FILE)  # results.md is a view of results.json, latencies included


class Reproduction(NamedTuple):
    """What two runs have that is not the same, by step or file; and where their machines or versions differ."""

    compared: list[str]
    differences: dict[str, list[str]]
    environments: list[str]


def reproduce(folder: Path, output: Path, data: Any = None) -> Reproduction:
    """Repeat the finished run in `folder` in `output`, and compare both; goes on where it was stopped.

    `data` is needed where the run was of tables in memory, or where its data has moved. Raises InputError where the
    run is not finished, or data or models are not those that it was made of.
    """
    description = _description(folder)
    if folder.resolve() == output.resolve():
        raise InputError(f"--output {output}: is the run itself; choose another folder to repeat it in")
    if data is None and description["data"] is None:
        raise InputError(f"{folder} was made of tables in memory: name the same rows by --data")
    if read_manifest(output) is not None:
        raise InputError(f"--output {output}: a whole run is there already; delete it, or choose another folder")
    run = Run.assemble(output, Settings.build(description["settings"]), description["data"] if data is None else data)
    run.check_folder()
    raise_faults(f"{folder} cannot be repeated", _other_sources(description, run.description()))
    with run_lock(output):
        run_all(run.begin())
    return compare(folder, output)


def _description(folder: Path) -> Mapping[str, Any]:
    """The description of a finished run; InputError where it is not finished, or its files have changed."""
    read_run(folder)
    manifest = verified_manifest(folder)
    if manifest is None or manifest.get("step") != "run":
        raise InputError(f"{folder}: no finished run; `metakd run --output {folder} --resume` finishes one")
    torn = [name for name in manifest["steps"] if name != "teacher_cache" and verified_manifest(folder / name) is None]
    if torn:
        raise InputError(f"{folder}: not as it was when it was finished: {', '.join(torn)}")
    return dict(manifest["run"])


def _other_sources(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How data and models of two descriptions differ."""
    faults = []
    if now["data_fingerprint"] != before["data_fingerprint"]:
        faults.append(f"data {now['data']}: not the rows that the run was made of")
    for name, digests in before["models"].items():
        if changed := _changed(digests, now["models"][name]):
            faults.append(f"{name} {before['settings'][name]}: not the files that it was: {', '.join(changed)}")
    return faults


def _changed(one: Mapping[str, str], two: Mapping[str, str]) -> list[str]:
    """Names under which two tables of checksums differ."""
    return [name for name in sorted({*one, *two}) if one.get(name) != two.get(name)]


def compare(first: Path, second: Path) -> Reproduction:
    """What differs between two finished runs: files of each step, what its manifest says, results but for times."""
    differences = {}
    steps = [finished_steps(folder) for folder in (first, second)]
    for name in sorted({*steps[0], *steps[1]}):
        one, two = (manifests.get(name, {}) for manifests in steps)
        differences[name] = _changed(one.get("files", {}), two.get("files", {})) + _unlike(one, two)
    for name in WHOLE_FILES:
        same = (first / name).read_bytes() == (second / name).read_bytes()
        differences[name] = [] if same else ["its bytes"]
    results = [json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in (first, second)]
    differences["results.json"] = _unlike(*results)
    unlike = {name: paths for name, paths in differences.items() if paths}
    return Reproduction([*differences], unlike, _other_environments(first, second))


def _unlike(one: Any, two: Any, place: str = "") -> list[str]:
    """Paths of the values in which two JSON values differ, but for VOLATILE ones, and checksums of files."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = [key for key in {**one, **two} if key not in (*VOLATILE, "files")]
        return [path for key in keys for path in _unlike(one.get(key), two.get(key), f"{place}.{key}".lstrip("."))]
    return [] if one == two else [place]


def _other_environments(first: Path, second: Path) -> list[str]:
    """Where versions or machines differ, on which bits may depend."""
    one, two = ((read_manifest(folder) or {})["environment"] for folder in (first, second))
    flat = [environment | environment["versions"] for environment in (one, two)]
    names = [name for name in flat[0] if name not in ("versions", "command")]
    return [f"{name}: {flat[0][name]}, now {flat[1].get(name)}" for name in names if flat[0][name] != flat[1].get(name)]
