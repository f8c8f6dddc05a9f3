"""The learning rate of the rival, chosen on dev: `fine_tuned` students of Amazon reviews at several rates.

    python benchmarks/rival.py --data DIR [--domains books kitchen] [--rates 5e-5 1e-4 2e-4] [--work runs/rival]

DIR as for benchmarks/amazon.py; all other settings are the defaults. Writes benchmarks/results/rival.json.
"""

import argparse
from pathlib import Path

from metakd import Run, Settings, distill
from metakd.artifacts import environment, read_manifest, write_json

RESULT = Path(__file__).parent / "results" / "rival.json"


def dev_accuracy(folder: Path, data: Path, rate: float, domain: str) -> float:
    settings = Settings(shared_learning_rate=rate, predict_learning_rate=rate)
    manifest = read_manifest(distill(Run.assemble(folder, settings, data).begin(), domain, "fine_tuned"))
    assert manifest is not None
    return manifest["check"]["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--domains", nargs="+", default=["books", "kitchen"])
    parser.add_argument("--rates", nargs="+", default=["5e-5", "1e-4", "2e-4"])
    parser.add_argument("--work", type=Path, default=Path("runs/rival"))
    arguments = parser.parse_args()
    found = {
        rate: {d: dev_accuracy(arguments.work / rate, arguments.data, float(rate), d) for d in arguments.domains}
        for rate in arguments.rates
    }
    write_json(RESULT, {"dev_accuracy": found, "environment": environment()})
    for rate, accuracies in found.items():
        print(rate, accuracies)


if __name__ == "__main__":
    main()
