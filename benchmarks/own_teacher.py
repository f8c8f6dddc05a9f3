"""A teacher that was fine-tuned elsewhere, beside the one that metakd trains: accuracy of both, and of their students.

    python benchmarks/own_teacher.py --work runs/own-teacher [--data DIR] [--seeds 3]

DIR has train and test, and is the demo's reviews by default. For each seed, a plain transformers.Trainer fine-tunes
all-MiniLM on all domains' text with the demo's epochs and rate. `run --teacher` distils it as it is, into the students
of the demo; beside it stands the demo's own run. What is finished in --work is not repeated. Writes
benchmarks/results/own_teacher.json: the students' difference, paired by example and seed.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from metakd import load_dataset
from metakd.config.settings import DEMO_DATA, DEMO_SETTINGS
from metakd.config.settings_file import read_settings_file
from metakd.evaluation.statistics import compare, summary
from metakd.models.hub import ALL_MINILM, resolve
from metakd.report.facts import Findings
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "own_teacher.json"
OURS, BROUGHT = "trained by metakd", "brought by --teacher"


def fine_tune(data: Path, folder: Path, seed: int) -> Path:
    """What a user has: a classifier by Trainer alone, saved with its tokenizer."""
    if (folder / "tokenizer.json").is_file():
        return folder
    set_seed(seed)
    settings, dataset, base = read_settings_file(DEMO_SETTINGS), load_dataset(data, seed), resolve(ALL_MINILM.package)
    names = {"id2label": dict(enumerate(dataset.labels)), "label2id": {n: i for i, n in enumerate(dataset.labels)}}
    model = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32, **names)
    tokenizer = AutoTokenizer.from_pretrained(base, model_max_length=128)
    rows = [tokenizer(e.text, truncation=True) | {"label": names["label2id"][e.label]} for e in dataset.train]
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=settings["teacher_epochs"],
        learning_rate=settings["teacher_learning_rate"],
        per_device_train_batch_size=settings["batch_size"],
        warmup_steps=round(0.1 * settings["teacher_epochs"] * len(rows) / settings["batch_size"]),
        seed=seed,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    Trainer(model, arguments, DataCollatorWithPadding(tokenizer), rows).train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def distilled(data: Path, output: Path, seed: int, *options: str) -> Findings:
    if not (output / "results.json").is_file():
        fixed = ("--config", DEMO_SETTINGS, "--no-baseline", "--seed", seed, "--resume")
        command = ("run", "--data", data, "--output", output, *fixed, *options)
        subprocess.run([sys.executable, "-m", "metakd", *map(str, command)], check=True)
    return Findings.read(output).ordered()


def rights(runs: Sequence[Findings], model: str) -> dict[str, Any]:
    """Which examples of each domain were right, (S, N)."""
    by_seed = [run.rights[model] for run in runs]
    return {domain: np.concatenate([each[domain] for each in by_seed]) for domain in by_seed[0]}


def measure(data: Path, work: Path, seeds: Sequence[int]) -> Mapping[str, Any]:
    runs: dict[str, list[Findings]] = {OURS: [], BROUGHT: []}
    for seed in seeds:
        runs[OURS].append(distilled(data, work / f"ours-{seed}", seed))
        teacher = fine_tune(data, work / f"teacher-{seed}", seed)
        brought = ("--teacher", str(teacher), "--base", ALL_MINILM.package)
        runs[BROUGHT].append(distilled(data, work / f"brought-{seed}", seed, *brought, "--teacher-epochs", "0"))
    teachers = {name: summary(rights(of, "meta_teacher")) for name, of in runs.items()}
    return {"teachers": teachers, **compare(BROUGHT, {name: rights(of, "student") for name, of in runs.items()})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DEMO_DATA)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    seeds = [*range(options.seeds)]
    figures = measure(options.data, options.work / options.data.name, seeds)
    write_json(RESULT, {"data": options.data.name, "seeds": seeds, **figures, "environment": environment()})


if __name__ == "__main__":
    main()
