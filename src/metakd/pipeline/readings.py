"""What dev decides of trained models: how they read long texts, and the temperature of each student."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metakd.data.splits import by_domain, leaks, sample_by_domain
from metakd.data.windows import Reading
from metakd.evaluation.calibration import FEWEST, calibrate
from metakd.evaluation.long_texts import Steps, after_each_window, choose_enough
from metakd.evaluation.predictions import Stores, loader
from metakd.inference.calibration import load_temperature, write_temperature
from metakd.inference.long_texts import load_reading, reading_by, write_reading
from metakd.inference.torch_backend import TorchModel
from metakd.models.class_head import find_head
from metakd.runs.run import Run
from metakd.utils.artifacts import MANIFEST
from metakd.utils.console import notice

LEAST = 100  # long texts that a threshold is chosen on
CHOSEN_ON = 10_000  # most examples of dev that a threshold is chosen on
NOT_CALIBRATED = f"probabilities are not calibrated: that takes {FEWEST} rows of dev, and a class head of one layer"


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
    settings, load, splits = run.settings, loader(stores, calibrated=False), run.data.splits
    learnt = {e.id for e in leaks(splits).get("dev", [])}
    dev = [e for e in splits.get("dev", []) if e.id not in learnt]

    def whole(folder: Path) -> TorchModel:
        model = load(folder)
        model.read_as(reading_by(settings.model_dump(), settings.max_length, model.readable_tokens))
        return model

    figures = dict[str, Any]()
    if settings.long_texts == "adaptive":
        notice("--long-texts adaptive: probabilities are not calibrated, as they decide how far a text is read")
    elif find_head(load(next(iter(students.values()))).network) is not None:
        figures = calibrate(students, dev, whole, settings.seed)
    if not figures and settings.long_texts != "adaptive":
        notice(NOT_CALIBRATED)
    temperatures = figures.get("temperatures", {})
    for domain, folder in students.items():
        if load_temperature(folder) != (temperature := temperatures.get(domain, 1.0)):
            (run.folder / MANIFEST).unlink(missing_ok=True)
            write_temperature(folder, temperature)
    return figures


def choose_reading(run: Run, fleet: Mapping[str, Path], load: Callable[[Path], TorchModel]) -> Reading:
    """How the models of a fleet (domain -> folder), which have one architecture, read long texts."""
    settings, first = run.settings, next(iter(fleet.values()))
    reading = reading_by(settings.model_dump(), settings.max_length, lambda n: load(first).readable_tokens(n))
    if settings.long_texts != "adaptive":
        return reading
    if not (dev := run.data.splits.get("dev")):
        notice("--long-texts adaptive: there is no dev split to choose by, so all windows of long texts are read")
        return reading
    rows, model = sample_by_domain(dev, CHOSEN_ON, settings.seed), load(first)
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
    if 0 < len(steps) < LEAST:
        notice(
            f"--long-texts adaptive: dev has {len(steps)} long texts, and {LEAST} are needed to choose by, so all "
            "windows are read"
        )
        return reading
    enough = choose_enough(steps)
    return reading.model_copy(update={"enough": enough} | ({"most_windows": 1} if enough == 0 else {}))
