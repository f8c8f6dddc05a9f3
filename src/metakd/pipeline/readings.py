"""How the models of a run read long texts: as `--long-texts` says, and adaptively as far as dev shows a gain."""

from collections.abc import Callable, Mapping
from pathlib import Path

from metakd.data.splits import by_domain, sample_by_domain
from metakd.data.windows import Reading
from metakd.evaluation.long_texts import Steps, after_each_window, choose_enough
from metakd.evaluation.predictions import Stores, loader
from metakd.inference.long_texts import load_reading, reading_by, write_reading
from metakd.inference.torch_backend import TorchModel
from metakd.runs.run import Run
from metakd.utils.console import notice

CHOSEN_ON = 10_000  # most examples of dev that a threshold is chosen on


def write_readings(run: Run, fleets: Mapping[str, Mapping[str, Path]], stores: Stores | None = None) -> None:
    """Write into the folder of each model of a fleet (domain -> folder) how it reads long texts."""
    stores = {} if stores is None else stores
    for fleet in fleets.values():
        reading = choose_reading(run, fleet, loader(stores)) if fleet else None
        for folder in {*fleet.values()}:
            if reading is not None and load_reading(folder) != reading:
                write_reading(folder, reading)


def choose_reading(run: Run, fleet: Mapping[str, Path], load: Callable[[Path], TorchModel]) -> Reading:
    """How the models of a fleet (domain -> folder), which have one architecture, read long texts."""
    settings = run.settings
    reading = reading_by(settings.model_dump(), load(next(iter(fleet.values()))), settings.max_length)
    if settings.long_texts != "adaptive":
        return reading
    if not (dev := run.data.splits.get("dev")):
        notice("--long-texts adaptive: there is no dev split to choose by, so all windows of long texts are read")
        return reading
    sample, steps = by_domain(sample_by_domain(dev, CHOSEN_ON, settings.seed)), list[Steps]()
    for domain, folder in fleet.items():
        model, rows = load(folder), sample.get(domain, [])
        model.read_as(reading)
        long = [e for e, fills in zip(rows, model.fills_a_window(rows), strict=True) if fills]
        steps += after_each_window(model, long, run.data.labels)
    return reading.model_copy(update={"enough": choose_enough(steps)})
