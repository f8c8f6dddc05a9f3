"""How fast students learn: metakd beside TextBrewer, beside a plain loop, beside a student without a teacher.

    pip install textbrewer==0.2.1.post1
    python benchmarks/speed.py --data DIR [--teacher minilm 12x768] [--rounds 5] [--examples 320]

DIR holds train.jsonl(.gz); its first texts are learnt from. All contenders train the same student (three layers of
all-MiniLM-L6-v2, width 384, 12 heads) for the same epochs, batch size and terms: logits, embedding output, hidden
states and attention of the same layers. `12x768` is a teacher of that shape with random weights, for speed alone.

- `metakd`: its own engine; writing the teacher's outputs is counted in. Its precision is `--precision`.
- `textbrewer`: GeneralDistiller, float32, texts padded to the full length, without its checkpoints.
- `plain`: the loop of the method's public release, written again: a live teacher, padded to the full length, float32.
- `alone`: cross-entropy on the labels by metakd's engine: the limit.

Contenders alternate, each in a process of its own, and medians over rounds are compared. An epoch with a live teacher
is the same work each time, so `textbrewer` and `plain` run `--live-epochs` of them, of which the last stands for those
left out. Adds to benchmarks/results/speed.json under the teacher's name.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, set_seed

from metakd import Settings, load_dataset
from metakd.data.samplers import updates_per_epoch
from metakd.data.tokenization import Collator, Encoded, encode
from metakd.losses import prediction_loss
from metakd.methods.base import Setup
from metakd.methods.fine_tuned import FineTuned
from metakd.methods.meta_kd import MetaKD
from metakd.models.forward_passes import teacher_outputs_in_order
from metakd.models.hub import resolve
from metakd.models.linear import use_torch_linear
from metakd.models.loading import load_encoder, load_tokenizer, set_dropout
from metakd.models.meta_teacher import MetaTeacher, freeze
from metakd.models.student import cut_student, map_layers
from metakd.training.distillation_module import CACHE_ROW, Distillation
from metakd.training.teacher_cache import TeacherCache, fits, layer_bytes
from metakd.training.trainer import TrainingPlan, fit
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import Precision, device, environment, native_precision

RESULT = Path(__file__).parent / "results" / "speed.json"
EPOCHS, BATCH, LENGTH, RATE = 10, 32, 128, 5e-5
STUDENT_LAYERS = 3
DEVICE = device()
LABELS = ["negative", "positive"]


def now() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Clocked:
    """A loader that notes when each epoch begins."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.began: list[float] = []

    def __iter__(self) -> Iterator[Any]:
        self.began.append(now())
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def figures(self) -> dict[str, float]:
        """Seconds of all epochs: the first as it was, the last in the place of each other one."""
        ends = [*self.began[1:], now()]
        first, last = ends[0] - self.began[0], ends[-1] - self.began[-1]
        return {"seconds": first + (EPOCHS - 1) * last, "epoch_seconds": last}


class Work:
    """What every contender starts from."""

    def __init__(self, data: str, teacher: str, examples: int) -> None:
        set_seed(0)
        self.settings = Settings(
            batch_size=BATCH,
            stages="joint",
            shared_epochs=0,
            windows=0,
            predict_epochs=EPOCHS,
            predict_learning_rate=RATE,
            terms=("embedding", "hidden", "attention", "prediction"),
            student_init="base",
        )
        chosen = load_dataset(data).train[:examples]
        base = resolve(self.settings.base)
        self.tokenizer = load_tokenizer(base, LENGTH)
        self.encoded: Encoded = encode(self.tokenizer, chosen, LENGTH).with_columns(
            labels=[LABELS.index(e.label) for e in chosen],
            domains=[0] * len(chosen),
            instance_weights=[1.0] * len(chosen),
        )
        encoder = load_encoder(base, LABELS)
        self.student = cut_student(encoder, map_layers(STUDENT_LAYERS, encoder.config.num_hidden_layers))
        self.teacher: PreTrainedModel = encoder if teacher == "minilm" else large_teacher(encoder.config.vocab_size)
        for model in (self.student, self.teacher):
            set_dropout(model, 0.0, 0.0)
        self.layers = map_layers(STUDENT_LAYERS, self.teacher.config.num_hidden_layers)

    def padded(self, labelled: bool = False) -> Clocked:
        """Batches of texts padded to the full length, shuffled."""
        texts = Collator(self.tokenizer.pad_token_id)([*self.encoded])
        names: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
        missing = LENGTH - texts["input_ids"].shape[1]
        rows = [torch.nn.functional.pad(texts[name], (0, missing)) for name in names]
        if labelled:
            rows, names = [*rows, texts["labels"]], (*names, "labels")
        dataset = torch.utils.data.TensorDataset(*rows)

        def collate(batch: Any) -> dict[str, torch.Tensor]:
            return dict(zip(names, map(torch.stack, zip(*batch, strict=True)), strict=True))

        return Clocked(DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate))


def use_library_kernels(model: PreTrainedModel) -> None:
    """Undo what metakd changes in a model, for the contenders that do without it."""
    model.set_attn_implementation("eager")
    use_torch_linear(model)


def large_teacher(vocabulary: int) -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(vocab_size=vocabulary, num_labels=len(LABELS)))


# --- Contenders: each returns seconds, and what else it knows ----------------------------------------------------


def run_metakd(work: Work, epochs: int, precision: Precision) -> dict[str, Any]:
    teacher = freeze(MetaTeacher(work.teacher, 1, "none", 0.0)).to(DEVICE)
    updates = updates_per_epoch(len(work.encoded), BATCH)
    method = MetaKD.build(Setup(work.settings, work.student, False, teacher, True, 1, updates, updates))
    stage = method.stages()[0]
    collator, rows = Collator(work.tokenizer.pad_token_id), list(range(len(work.encoded)))
    with tempfile.TemporaryDirectory() as folder:
        started = now()
        cache = Path(folder) / "cache"
        cache.mkdir()
        sizes = layer_bytes(work.encoded.lengths, teacher.encoder.config.hidden_size, stage.layers, precision)
        outputs = teacher_outputs_in_order(teacher, work.encoded, collator, stage.layers, precision)
        TeacherCache.write(cache, [str(row) for row in rows], outputs, stage.layers, fits(sizes, 1e12), precision)
        filled = now() - started
        kept = sum(path.stat().st_size for path in cache.iterdir())
        del teacher, work.teacher
        learner = Distillation(work.student, method, None, TeacherCache(cache, stage.layers))
        plan = TrainingPlan("metakd", epochs, RATE, Path(folder) / "checkpoints", work.settings, precision)
        fit(learner, work.encoded.with_columns(**{CACHE_ROW: rows}), collator, plan)
        seconds = now() - started
    return {
        "seconds": seconds,
        "fill_seconds": filled,
        "epoch_seconds": (seconds - filled) / epochs,
        "cache_bytes": kept,
    }


def run_alone(work: Work, epochs: int, precision: Precision) -> dict[str, Any]:
    del work.teacher
    settings = work.settings
    updates = updates_per_epoch(len(work.encoded), BATCH)
    method = FineTuned.build(Setup(settings, work.student, False, None, True, 1, updates, updates))
    learner = Distillation(work.student, method, None, None)
    with tempfile.TemporaryDirectory() as folder:
        started = now()
        plan = TrainingPlan("alone", epochs, RATE, Path(folder), settings, precision)
        fit(learner, work.encoded, Collator(work.tokenizer.pad_token_id), plan)
        seconds = now() - started
    return {"seconds": seconds, "epoch_seconds": seconds / epochs}


def run_plain(work: Work, epochs: int, _: Precision) -> dict[str, Any]:
    teacher, student = work.teacher.eval().requires_grad_(False).to(DEVICE), work.student.train().to(DEVICE)
    for model in (teacher, student):
        use_library_kernels(model)
    width = student.config.hidden_size, teacher.config.hidden_size
    project = torch.nn.Identity() if width[0] == width[1] else torch.nn.Linear(*width).to(DEVICE)
    parameters = [*student.parameters(), *project.parameters()]
    optimizer, mse = torch.optim.AdamW(parameters, lr=RATE), torch.nn.functional.mse_loss
    loader = work.padded()
    for _ in range(epochs):
        for texts in loader:
            batch = {name: values.to(DEVICE) for name, values in texts.items()}
            with torch.no_grad():
                theirs = teacher(**batch, output_hidden_states=True, output_attentions=True)
            ours = student(**batch, output_hidden_states=True, output_attentions=True)
            loss = prediction_loss(ours.logits, theirs.logits).mean()
            for mine, layer in zip(ours.hidden_states, [0, *work.layers], strict=True):
                loss = loss + mse(project(mine), theirs.hidden_states[layer])
            for mine, layer in zip(ours.attentions, work.layers, strict=True):
                loss = loss + mse(mine, theirs.attentions[layer - 1])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return loader.figures()


def run_textbrewer(work: Work, epochs: int, _: Precision, layers: bool = True, logits: bool = True) -> dict[str, Any]:
    """Distillation by all terms, or by what `layers` or `logits` leave of them."""
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    teacher, student = work.teacher.eval().to(DEVICE), work.student.train().to(DEVICE)
    for model in (teacher, student):
        use_library_kernels(model)
    width = student.config.hidden_size, teacher.config.hidden_size
    projection = {} if width[0] == width[1] else {"proj": ["linear", *width]}
    pairs = list(zip(range(1, STUDENT_LAYERS + 1), work.layers, strict=True))
    matches = [
        {"layer_T": theirs, "layer_S": mine, "feature": "hidden", "loss": "hidden_mse", "weight": 1, **projection}
        for mine, theirs in [(0, 0), *pairs]
    ] + [
        {"layer_T": theirs - 1, "layer_S": mine - 1, "feature": "attention", "loss": "attention_mse", "weight": 1}
        for mine, theirs in pairs
    ]

    def adaptor(batch: Any, outputs: Any) -> dict[str, Any]:
        named = {"logits": outputs.logits} if logits else {}
        if layers:
            named |= {"hidden": outputs.hidden_states, "attention": outputs.attentions}
        return named | {"inputs_mask": batch["attention_mask"]}

    loader = work.padded()
    with tempfile.TemporaryDirectory() as folder:
        training = TrainingConfig(output_dir=folder, device=DEVICE, ckpt_frequency=0)
        distiller = GeneralDistiller(
            training,
            DistillationConfig(
                temperature=1, kd_loss_weight=float(logits), intermediate_matches=matches if layers else None
            ),
            teacher,
            student,
            adaptor,
            adaptor,
        )
        optimizer = torch.optim.AdamW(student.parameters(), lr=RATE)
        with distiller:
            outputs = {"output_hidden_states": layers, "output_attentions": layers}
            distiller.train(optimizer, loader, num_epochs=epochs, max_grad_norm=1.0, **outputs)
        return loader.figures()


CONTENDERS: dict[str, Callable[[Work, int, Precision], dict[str, Any]]] = {
    "metakd": run_metakd,
    "textbrewer": run_textbrewer,
    "plain": run_plain,
    "alone": run_alone,
}
LIVE = ("textbrewer", "plain")


class PeakAnonymous(threading.Thread):
    """The most anonymous memory that this process has held, looked at twenty times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.start()

    def run(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            kibibytes = next(row.split()[1] for row in status.splitlines() if row.startswith("RssAnon"))
            self.bytes = max(self.bytes, int(kibibytes) * 1024)
            time.sleep(0.05)


def one(options: argparse.Namespace) -> None:
    """A child process: one contender, one round, its figures as the last row of standard output."""
    work, peak = Work(options.data, options.teacher[0], options.examples), PeakAnonymous()
    epochs = options.live_epochs if options.only in LIVE else EPOCHS
    figures = CONTENDERS[options.only](work, epochs, options.precision)
    print(json.dumps({**figures, "epochs": epochs, "anonymous_bytes": peak.bytes}))


def compare(options: argparse.Namespace, teacher: str) -> dict[str, Any]:
    """Medians over rounds of every contender, and ratios to metakd."""
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(options.rounds):
        rounds.append({})
        names = list(CONTENDERS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            flags = ["--data", options.data, "--teacher", teacher, "--examples", str(options.examples)]
            flags += ["--live-epochs", str(options.live_epochs), "--precision", options.precision, "--only", name]
            done = subprocess.run([sys.executable, __file__, *flags], stdout=subprocess.PIPE, text=True, check=True)
            rounds[-1][name] = figures = json.loads(done.stdout.splitlines()[-1])
            print(teacher, number, name, f"{options.examples * EPOCHS / figures['seconds']:.1f} examples/s", flush=True)
    middle = {
        name: {key: median(r[name][key] for r in rounds) for key in rounds[0][name] if key != "epochs"}
        for name in CONTENDERS
    }
    for figures in middle.values():
        figures["examples_per_second"] = options.examples * EPOCHS / figures["seconds"]
    times = {name: median(r[name]["seconds"] / r["metakd"]["seconds"] for r in rounds) for name in CONTENDERS}
    steady = median(r["metakd"]["epoch_seconds"] / r["alone"]["epoch_seconds"] for r in rounds)
    return {"medians": middle, "times_slower_than_metakd": times, "steady_epoch_over_alone": steady, "rounds": rounds}


def table(results: dict[str, Any]) -> str:
    """The rows of docs/performance.md."""
    rows = [
        "| teacher | contender | examples a second | seconds / metakd's | anonymous GB |",
        "|---|---|---:|---:|---:|",
    ]
    for name, result in results.items():
        for contender, middle in result["medians"].items():
            times = result["times_slower_than_metakd"][contender]
            speed, memory = middle["examples_per_second"], middle["anonymous_bytes"] / 1e9
            rows.append(f"| {name} | {contender} | {speed:.1f} | {times:.2f} | {memory:.2f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--teacher", nargs="+", choices=["minilm", "12x768"], default=["minilm", "12x768"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=320)
    parser.add_argument("--live-epochs", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default=native_precision())
    parser.add_argument("--only", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        one(options)
        return
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    where = [torch.cuda.get_device_name()] if DEVICE.type == "cuda" else []
    for teacher in options.teacher:
        result = compare(options, teacher)
        set_up = {name: getattr(options, name) for name in ("examples", "rounds", "live_epochs", "precision")}
        results[", ".join([teacher, *where, options.precision])] = {**set_up, **result, "environment": environment()}
        write_json(RESULT, results)
        print("a steady epoch over the student alone:", result["steady_epoch_over_alone"])
    print(table(results))


if __name__ == "__main__":
    main()
