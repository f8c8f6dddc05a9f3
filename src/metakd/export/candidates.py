"""A budget, the ways to meet it, and what each of them costs on this machine before anything is trained."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.evaluation.costs import measure_latency
from metakd.evaluation.latency import LATENCY_TEXTS, LATENCY_WARMUP
from metakd.export.exporter import folder_bytes
from metakd.export.onnx_format import quantize, ship
from metakd.inference.onnx_backend import MODEL_FILE, OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models.compact_embedding import ROWS, compact_bytes
from metakd.models.hub import resolve
from metakd.models.layer_map import map_layers
from metakd.models.loading import load_config, load_encoder, load_tokenizer
from metakd.models.student import cut_student, layers_to_cut
from metakd.runs.fingerprints import MODEL_FILES
from metakd.utils.artifacts import digest_files, fingerprint, write_json
from metakd.utils.console import console
from metakd.utils.environment import environment
from metakd.utils.hardware import usable_cores

MOST_LAYERS = 6  # of the students that are tried


@dataclass(frozen=True)
class Budget:
    """What a model may cost on this machine, and what it has to be worth; None where that does not matter."""

    p95_ms: float | None = None  # 95th percentile of one text at a time, tokenising included
    max_mb: float | None = None  # of model, tokenizer and labels
    min_accuracy: float | None = None  # of each domain, on dev

    def excess(self, p95: float, size: float, accuracy: float | None = None) -> dict[str, float]:
        """Which demands fail, by how much and as a share of the demand; accuracy counts once it is known."""
        found = {}
        if self.p95_ms is not None and (over := p95 - self.p95_ms) > 0:
            found[f"p95 {p95:.2f} ms, {over:.2f} too slow"] = over / self.p95_ms
        if self.max_mb is not None and (over := size / 1e6 - self.max_mb) > 0:
            found[f"{size / 1e6:.2f} MB, {over:.2f} too large"] = over / self.max_mb
        if self.min_accuracy is not None and accuracy is not None and (over := self.min_accuracy - accuracy) > 0:
            found[f"accuracy {accuracy:.3f}, {over:.3f} too low"] = over / self.min_accuracy
        return found


@dataclass(frozen=True)
class Candidate:
    """A way to make a model, and what one of its kind costs here; nothing of it depends on training."""

    student: str  # as in the setting: 'layers=3', or a checkpoint
    int8: bool
    cut: bool  # whether its table of embeddings is cut to the domain
    max_length: int
    p95: float = 0.0
    median: float = 0.0
    bytes: float = 0.0

    @property
    def name(self) -> str:
        precision, table = "int8" if self.int8 else "float32", "compact table" if self.cut else "whole table"
        return f"{self.student}, {precision}, {table}, {self.max_length} tokens"


def measure_all(data: MultiDomainDataset, settings: Settings, work: Path, also: Sequence[str]) -> list[Candidate]:
    """All candidates, the largest student first; what was measured before on this machine is read again."""
    layers = load_config(resolve(settings.base)).num_hidden_layers
    students = [*also, *(f"layers={n}" for n in range(min(MOST_LAYERS, layers), 0, -1))]
    where = environment()["processor"], usable_cores()
    found = list[list[Candidate]]()
    for count, student in enumerate(students, 1):
        model = digest_files(resolve(settings.base if layers_to_cut(student) else student), MODEL_FILES)
        mark = fingerprint("measure", student, model, settings.max_length, data.fingerprint, ROWS, where)
        place = work / f"measured-{mark[:16]}.json"
        if not place.is_file():
            console.print(f"measuring {student} ({count} of {len(students)})")
            write_json(place, [asdict(c) for c in _measure(data, settings, work, student)])
        found.append([Candidate(**own) for own in json.loads(place.read_text(encoding="utf-8"))])
    found.sort(key=lambda own: -max(candidate.bytes for candidate in own))
    return [candidate for own in found for candidate in own]


def _measure(data: MultiDomainDataset, settings: Settings, work: Path, student: str) -> list[Candidate]:
    dev = data.splits["dev"]
    examples = random.Random(0).sample(dev, min(len(dev), LATENCY_WARMUP + LATENCY_TEXTS))  # of all domains
    model = _untrained(settings, student, data.labels)
    rows, width = model.network.get_input_embeddings().weight.shape
    folder, found = work / ".measured.partial", []
    shutil.rmtree(folder, ignore_errors=True)
    ship(model, folder, examples, settings.max_length)
    for int8 in (False, True):
        if int8:
            quantize(folder / MODEL_FILE)
        size = folder_bytes(folder)
        item = 1 if int8 else 4
        saved = rows * width * item - compact_bytes(rows, width, item) if rows > ROWS else 0
        for max_length in (settings.max_length, settings.max_length // 2):
            took = measure_latency(loaded(folder, max_length), examples)
            for cut in (False, True) if saved else (False,):
                costs = took["p95"], took["median"], float(size - saved * cut)
                found.append(Candidate(student, int8, cut, max_length, *costs))
    shutil.rmtree(folder)
    return found


def _untrained(settings: Settings, student: str, labels: list[str]) -> TorchModel:
    layers = layers_to_cut(student)
    if layers is None:
        folder = resolve(student)
        return TorchModel(load_encoder(folder, labels), load_tokenizer(folder, settings.max_length))
    folder = resolve(settings.base)
    base = load_encoder(folder, labels)
    student = cut_student(base, map_layers(layers, base.config.num_hidden_layers))
    return TorchModel(student, load_tokenizer(folder, settings.max_length))


def loaded(folder: Path, max_length: int) -> OnnxModel:
    """The exported model, reading no more than `max_length` tokens."""
    model = OnnxModel.load(folder)
    model.tokenizer.enable_truncation(max_length)
    return model
