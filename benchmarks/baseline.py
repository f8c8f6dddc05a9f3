"""The learning rate of the baseline, chosen on dev: `fine_tuned_shared` students of Amazon reviews at several rates.

    python benchmarks/baseline.py --data DIR [--rates 2.5e-5 5e-5 1e-4 2e-4 4e-4] [--work runs/baseline]

DIR as for benchmarks/amazon.py. A rate is that of the start for all domains; all other settings are the defaults.
Adds to benchmarks/results/baseline.json, and removes rates that were tried with other settings or data.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from metakd import Run, Settings
from metakd.pipeline.distill import distill_all
from metakd.utils.artifacts import read_manifest, write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "baseline.json"


def assembled(folder: Path, data: Path, rate: float) -> Run:
    settings = Settings(method="fine_tuned_shared", baseline=False, baseline_learning_rate=rate, track="none")
    return Run.assemble(folder, settings, data)


def conditions(run: Run) -> dict[str, Any]:
    """What has to be the same for rates to be compared."""
    settings = run.settings.model_dump(mode="json", exclude={"baseline_learning_rate"})
    return {"settings": settings, "data_fingerprint": run.data.fingerprint}


def dev_accuracy(run: Run) -> dict[str, float]:
    students = distill_all(run.begin(), run.data.domains, run.methods)
    manifests = [read_manifest(student) for student in students]
    return {d: m["check"]["accuracy"] for d, m in zip(run.data.domains, manifests, strict=True) if m is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rates", nargs="+", default=["2.5e-5", "5e-5", "1e-4", "2e-4", "4e-4"])
    parser.add_argument("--work", type=Path, default=Path("runs/baseline"))
    arguments = parser.parse_args()
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for rate in arguments.rates:
        run = assembled(arguments.work / rate, arguments.data, float(rate))
        same = conditions(run)
        accuracies = dev_accuracy(run)
        results = {known: result for known, result in results.items() if same.items() <= result.items()}
        results[rate] = {"dev_accuracy": accuracies, **same, "environment": environment()}
        write_json(RESULT, dict(sorted(results.items(), key=lambda item: float(item[0]))))
        print(rate, accuracies)


if __name__ == "__main__":
    main()
