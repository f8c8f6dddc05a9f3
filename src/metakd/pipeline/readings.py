"""What dev decides of trained models: how they read long texts, how sure students are, and which labels are given."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metakd.data.schema import Example, Inputs
from metakd.data.splits import by_domain, sample_by_domain
from metakd.data.windows import Reading
from metakd.evaluation.calibration import FEWEST, calibrate
from metakd.evaluation.long_texts import Steps, after_each_window, choose_enough
from metakd.evaluation.predictions import Stores, loader
from metakd.evaluation.thresholds import Thresholds, ThresholdsByFleet, choose_thresholds
from metakd.inference.calibration import load_calibration, write_calibration
from metakd.inference.long_texts import load_reading, reading_by, write_reading
from metakd.inference.torch_backend import TorchModel
from metakd.models.class_head import find_head
from metakd.runs.run import Run
from metakd.utils.artifacts import MANIFEST
from metakd.utils.console import notice
from metakd.utils.errors import listed

FEWEST_LONG = 100  # long texts that decide how far they are read
MOST = 10_000  # texts that decide, or FEWEST of each domain
OF_DEV = f"{FEWEST} texts of dev that are in no other split"
NOT_CALIBRATED = "probabilities are not calibrated"


def write_readings(run: Run, fleets: Mapping[str, Mapping[str, Path]], stores: Stores) -> bool:
    """Write into the folder of each model of a fleet (domain -> folder) how it reads long texts.

    Scores of another reading no longer count as those of the run. Returns whether dev has decided on one.
    """
    decided = False
    for fleet in filter(None, fleets.values()):
        reading = choose_reading(run, fleet, loader(stores))
        for folder in {*fleet.values()}:
            if load_reading(folder) != reading:
                (run.folder / MANIFEST).unlink(missing_ok=True)
                write_reading(folder, reading)
        decided |= reading.enough is not None
    return decided


def write_temperatures(run: Run, students: Mapping[str, Path], stores: Stores) -> dict[str, Any]:
    """Write into the folder of each domain's student by what its logits are divided; what that brings, if known.

    They read long texts as far as they ever will. Scores of other probabilities no longer count as those of the run.
    """
    settings, load = run.settings, loader(stores, calibrated=False)
    figures = dict[str, Any]()
    if settings.long_texts == "adaptive":
        notice(f"--long-texts adaptive: {NOT_CALIBRATED}, as they decide how far a text is read")
    elif find_head(load(next(iter(students.values()))).network) is None:
        notice(f"{NOT_CALIBRATED}: that takes a linear last layer, which these students do not have")
    else:
        rows = rows_to_decide_on(run)
        figures = calibrate(students, rows, lambda folder: _whole(run, load(folder)), settings.seed)
        if not figures:
            notice(f"{NOT_CALIBRATED}: that takes {OF_DEV}, with labels of their domains' students")
    temperatures = figures.get("temperatures", {})
    for domain, folder in students.items():
        _record(run, folder, temperature=temperatures.get(domain, 1.0))
    return figures


def write_thresholds(run: Run, fleets: Mapping[str, Mapping[str, Path]], stores: Stores) -> ThresholdsByFleet:
    """Write into the folder of each model of a fleet (domain -> folder) the threshold of each label.

    A model of several domains has the same for all; a label that a text's domain lacks is not counted. Scores by other
    thresholds no longer count as those of the run.

    Returns:
        The thresholds by fleet and domain; nothing if a text has one label.
    """
    chosen: dict[str, dict[str, Thresholds]] = {}
    if not run.data.several_labels:
        return chosen
    load, rows = loader(stores), by_domain(rows_to_decide_on(run))
    if few := [domain for domain in run.data.domains if len(rows.get(domain, [])) < FEWEST]:
        notice(f"students and baselines of {listed(few)} give labels above one half: thresholds take {OF_DEV}")
    for name, fleet in fleets.items():
        for folder in dict.fromkeys(fleet.values()):
            domains = [domain for domain, place in fleet.items() if place == folder]
            model, examples = _whole(run, load(folder)), [e for domain in domains for e in rows.get(domain, [])]
            among = {domain: np.isin(model.labels, run.features.classes(domain)) for domain in domains}
            p = model.answers(examples).probabilities.astype(np.float64)
            p *= np.array([among[e.domain] for e in examples]).reshape(p.shape)
            thresholds = choose_thresholds(examples, model.labels, p, run.settings.seed)
            _record(run, folder, thresholds=tuple(thresholds.by_label.values()))
            chosen.setdefault(name, {}).update(dict.fromkeys(domains, thresholds))
    return chosen


def rows_to_decide_on(run: Run) -> list[Example]:
    """Those of dev that decide: about MOST at most, by seed, each text once, and none that is in train or test."""
    splits, once = run.data.splits, dict[Inputs, Example]()
    others = {e.inputs for split in ("train", "test") for e in splits.get(split, [])}
    for e in splits.get("dev", []):
        if e.inputs not in others:
            once.setdefault(e.inputs, e)
    return sample_by_domain([*once.values()], max(MOST, FEWEST * len(run.data.domains)), run.settings.seed)


def _whole(run: Run, model: TorchModel) -> TorchModel:
    """The model, reading long texts as far as it ever will."""
    model.read_as(reading_by(run.settings.model_dump(), run.settings.max_length, model.readable_tokens))
    return model


def _record(run: Run, folder: Path, **decided: Any) -> None:
    """Write what dev has decided of a model."""
    before = load_calibration(folder)
    if (after := before._replace(**decided)) != before:
        (run.folder / MANIFEST).unlink(missing_ok=True)
        write_calibration(folder, after)


def choose_reading(run: Run, fleet: Mapping[str, Path], load: Callable[[Path], TorchModel]) -> Reading:
    """How the models of a fleet (domain -> folder), which have one architecture, read long texts."""
    settings, first = run.settings, next(iter(fleet.values()))
    reading = reading_by(settings.model_dump(), settings.max_length, lambda n: load(first).readable_tokens(n))
    if settings.long_texts != "adaptive":
        return reading
    if not (rows := rows_to_decide_on(run)):
        notice("--long-texts adaptive: dev has no texts of its own to choose by, so all windows of long texts are read")
        return reading
    model = load(first)
    model.read_as(reading)
    long = by_domain([e for e, fills in zip(rows, model.fills_a_window(rows), strict=True) if fills])
    if not {*model.labels} <= {*run.data.labels}:
        notice("--long-texts adaptive: with --heads domain, the teacher reads all windows")  # no head is sure alone
        return reading
    steps = list[Steps]()
    for domain in [domain for domain in fleet if domain in long]:
        model = load(fleet[domain])
        model.read_as(reading)
        steps += after_each_window(model, long[domain])
    if 0 < len(steps) < FEWEST_LONG:
        notice(
            f"--long-texts adaptive: dev has {len(steps)} long texts, and {FEWEST_LONG} are needed to choose by, so "
            "all windows are read"
        )
        return reading
    return reading.model_copy(update={"enough": choose_enough(steps)})
