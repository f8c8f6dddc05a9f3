"""What a whole `metakd run` takes, beside the same work through TextBrewer.

    pip install textbrewer==0.2.1.post1
    python benchmarks/amazon.py --data DIR --config benchmarks/authors.yaml --seeds 0 --work runs/authors
    python benchmarks/whole_run.py --data DIR

The run is that of amazon-authors.json: teacher, four students, four baselines, weighing, scoring, as it took (in the
committed one, of 49db322, the baselines are by `fine_tuned`; those of today make as many passes). TextBrewer has no
such run. Its time is what its own loops take for the same passes over the same reviews (BasicTrainer for the teacher
and the baselines, GeneralDistiller for both stages of the students), each loop measured for `--epochs` passes over
`--examples` reviews on this machine, the last of which stands for all; weighing and scoring are not counted against it.
Writes benchmarks/results/whole_run.json.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speed import DEVICE, RATE, Work, run_textbrewer, use_library_kernels
from textbrewer import BasicTrainer, TrainingConfig
from transformers import PreTrainedModel

from metakd import load_dataset
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULTS = Path(__file__).parent / "results"


def train_by_textbrewer(work: Work, model: PreTrainedModel, epochs: int) -> dict[str, float]:
    """Labels alone: texts padded to the full length, float32."""
    loader, optimizer = work.padded(labelled=True), torch.optim.AdamW(model.parameters(), lr=RATE)
    use_library_kernels(model)
    trainer = BasicTrainer(
        TrainingConfig(output_dir=".", device=DEVICE, ckpt_frequency=0),
        model.train().to(DEVICE),
        lambda batch, outputs: {"losses": [outputs.loss]},
    )
    with trainer:
        trainer.train(optimizer, loader, num_epochs=epochs, max_grad_norm=1.0)
    return loader.figures()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--examples", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    run = json.loads((RESULTS / "amazon-authors.json").read_text(encoding="utf-8"))
    results = next(iter(run["seeds"].values()))
    settings, rows = results["run"]["settings"], len(load_dataset(options.data).train)
    match, predict = settings["match_epochs"], settings["predict_epochs"]
    passes = {"teach": settings["teacher_epochs"], "match": match, "predict": predict, "baselines": match + predict}
    loops: dict[str, Any] = {
        "teach": lambda work, epochs: train_by_textbrewer(work, work.teacher, epochs),
        "match": partial(run_textbrewer, _="float32", logits=False),
        "predict": partial(run_textbrewer, _="float32", layers=False),
        "baselines": lambda work, epochs: train_by_textbrewer(work, work.student, epochs),
    }
    measured: dict[str, dict[str, float]] = {}
    for name, loop in loops.items():
        seconds = loop(Work(options.data, "minilm", options.examples), epochs=options.epochs)["epoch_seconds"]
        whole = seconds / options.examples * rows * passes[name]
        measured[name] = {"seconds_a_pass": seconds, "passes": passes[name], "whole_seconds": whole}
        print(name, f"{options.examples / seconds:.1f} examples/s, {whole / 60:.1f} minutes", flush=True)
    ours, theirs = sum(results["seconds"].values()), sum(loop["whole_seconds"] for loop in measured.values())
    print(f"metakd {ours / 60:.1f} minutes, TextBrewer {theirs / 60:.1f}: {theirs / ours:.1f} times")
    write_json(
        RESULTS / "whole_run.json",
        {
            "metakd_seconds": results["seconds"],
            "textbrewer": measured,
            "examples": options.examples,
            "rows": rows,
            "times_slower_than_metakd": theirs / ours,
            "environment": environment(),
        },
    )


if __name__ == "__main__":
    main()
