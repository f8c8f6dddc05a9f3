"""How near one shared student comes to its teacher, by a setting: accuracy, agreement and KL divergence on dev.

    python benchmarks/fidelity.py NAME --data DIR --work FOLDER --config FILE.yaml

DIR holds the Multi-Domain Sentiment Dataset, which is cut again, 60/10/30; the 30 are left alone. FOLDER may be one
of `metakd experiment`, whose teacher is then taken. Adds a row to benchmarks/results/evidence/shared-looks.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from metakd import Settings
from metakd.config.settings_file import read_settings_file
from metakd.data.dataset import load_dataset
from metakd.evaluation.predictions import predictions_of
from metakd.inference.torch_backend import TorchModel
from metakd.pipeline.distill import distill_all
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.runs.run import Run
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "evidence" / "shared-looks.jsonl"
ALWAYS = {"predict_epochs": 0, "baseline": False, "keep_cache": True, "allow_weak_teacher": True, "track": "none"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    data, changes = load_dataset(options.data, 0).resplit(10, 30), read_settings_file(options.config)
    run = Run(options.work, Settings.build(ALWAYS | changes), data, by_content=True)
    weigh(run)
    teacher = TorchModel.load(teach(run))
    started = time.perf_counter()
    student = TorchModel.load(distill_all(run, data.domains, ["meta_kd"])[0])
    minutes = (time.perf_counter() - started) / 60
    dev = data.splits["dev"]
    ours, theirs = (model.answers(dev).probabilities.clip(1e-6) for model in (student, teacher))
    masks = [np.array([e.domain == domain for e in dev]) for domain in data.domains]
    row: dict[str, Any] = {"name": options.name, "changes": changes}
    for name, model in (("dev", student), ("teacher_dev", teacher)):
        right = predictions_of(dev, data.labels, model).right
        row[name] = round(100 * float(np.mean([right[mask].mean() for mask in masks])), 2)
    row |= {
        "agreement": round(100 * float((ours.argmax(1) == theirs.argmax(1)).mean()), 2),
        "kl": round(float((theirs * np.log(theirs / ours)).sum(1).mean()), 4),
        "minutes": round(minutes, 1),
        "environment": environment(),
    }
    with RESULT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row)


if __name__ == "__main__":
    main()
