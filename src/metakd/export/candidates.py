"""A budget, the candidates that may meet it, and what each costs on this machine before anything is trained."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from metakd.config.groups import READING
from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.schema import Example
from metakd.data.windows import Reading
from metakd.evaluation.costs import measure_latencies, timed_texts, windows_filled
from metakd.export.exporter import folder_bytes
from metakd.export.model_cards import in_words
from metakd.export.onnx_format import quantize, write_model
from metakd.inference.classifier import Classifier
from metakd.inference.long_texts import reading_by
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models.embeddings import ROWS, compact_bytes
from metakd.models.hub import resolve
from metakd.models.loading import load_config, load_encoder, load_tokenizer
from metakd.models.student import cut_student, layers_to_cut, start_layers
from metakd.runs.fingerprints import MODEL_FILES
from metakd.runs.student_classes import student_classes
from metakd.utils.artifacts import STEP_VERSIONS, digest_files, fingerprint, write_json
from metakd.utils.console import console
from metakd.utils.hardware import timed_on

MOST_LAYERS = 6  # of the students that are tried
MEASURED = "measured-*.json"  # the files of what was measured


@dataclass(frozen=True)
class Budget:
    """Limits on what a model may cost on this machine, and on its accuracy; None where there is no limit."""

    p95_ms: float | None = None  # 95th percentile of one text at a time, tokenising included
    max_mb: float | None = None  # of model, tokenizer and labels
    min_accuracy: float | None = None  # of each domain, on dev

    def excess(self, p95: float, size: float, accuracy: float | None = None) -> dict[str, float]:
        """The exceeded limits: the excess in words -> as a share of the limit; of accuracy, if it is known."""
        excess = {}
        if self.p95_ms is not None and (over := p95 - self.p95_ms) > 0:
            excess[f"p95 {p95:.2f} ms, {over:.2f} too slow"] = over / self.p95_ms
        if self.max_mb is not None and (over := size / 1e6 - self.max_mb) > 0:
            excess[f"{size / 1e6:.2f} MB, {over:.2f} too large"] = over / self.max_mb
        if self.min_accuracy is not None and accuracy is not None and (over := self.min_accuracy - accuracy) > 0:
            excess[f"accuracy {accuracy:.3f}, {over:.3f} too low"] = over / self.min_accuracy
        return excess


@dataclass(frozen=True)
class Candidate:
    """A student and the form of its export, with its costs on this machine, which do not depend on training."""

    student: str  # as in the setting: 'layers=3', or a checkpoint
    int8: bool
    compact: bool  # whether its embedding table is compact
    max_length: int  # tokens of a window
    p95: float = 0.0
    median: float = 0.0
    bytes: float = 0.0
    busy: bool = False  # whether other work lengthened these times
    most_windows: int = 1
    stride: int = 0

    @property
    def reading(self) -> Reading:
        """How much of a text it reads: all of its windows, so that its times hold for any text."""
        return Reading(max_length=self.max_length, most_windows=self.most_windows, stride=self.stride)

    @property
    def form(self) -> str:
        return in_words(self.student, self.int8, self.compact)

    @property
    def name(self) -> str:
        return f"{self.form}, {self.reading}"


def measure_candidates(
    data: MultiDomainDataset, settings: Settings, work: Path, also: Sequence[str]
) -> list[Candidate]:
    """All candidates, the largest student first; what was measured before on this machine is read from `work`."""
    layers = load_config(resolve(settings.base)).num_hidden_layers
    students = [*also, *(f"layers={n}" for n in range(min(MOST_LAYERS, layers), 0, -1))]
    measured = list[list[Candidate]]()
    for number, student in enumerate(students, 1):
        files = digest_files(resolve(settings.base if layers_to_cut(student) else student), MODEL_FILES)
        measuring = (
            STEP_VERSIONS["fit"],
            [getattr(settings, name) for name in ("max_length", *READING)],
            data.fingerprint,
            settings.labels,
            ROWS,
            timed_on(),
        )
        digest = fingerprint("candidates", student, files, *measuring)
        path = work / MEASURED.replace("*", digest[:16])
        known = [Candidate(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []
        if not known:
            console.print(f"measuring {student} ({number} of {len(students)})")
            known = _measure(data, settings, work, student)
            write_json(path, [asdict(candidate) for candidate in known])
        measured.append(known)
    measured.sort(key=lambda candidates: max(c.bytes for c in candidates), reverse=True)
    return [candidate for candidates in measured for candidate in candidates]


def _measure(data: MultiDomainDataset, settings: Settings, work: Path, student: str) -> list[Candidate]:
    """Export the untrained student with a whole table, and measure it in every form; a compact table costs no time."""
    widest = max((student_classes(settings, data, domain) for domain in data.domains), key=len)
    dev, model = data.splits["dev"], _untrained(settings, student, widest)
    rows, width = model.network.get_input_embeddings().weight.shape
    folder, candidates = work / ".measured.partial", list[Candidate]()
    shutil.rmtree(folder, ignore_errors=True)
    write_model(model, folder, dev)
    readings = readings_to_try(settings, model, dev)
    for int8, item in ((False, 4), (True, 1)):
        if int8:
            quantize(folder)
        size = folder_bytes(folder)
        saved = max(0, rows * width * item - compact_bytes(rows, width, item)) if rows > ROWS else 0
        for reading in readings:
            form = Classifier(load_as(folder, reading)).predict_examples
            latency = measure_latencies({"form": form}, dev, seed=0)["form"].summary()
            costs = reading.model_dump(exclude={"enough"}) | latency
            candidates += [
                Candidate(student, int8, compact, **costs, bytes=float(size - saved * compact))
                for compact in ((False, True) if saved else (False,))
            ]
    shutil.rmtree(folder)
    return candidates


def _untrained(settings: Settings, student: str, labels: list[str]) -> TorchModel:
    layers = layers_to_cut(student)
    folder = resolve(settings.base if layers else student)
    encoder = load_encoder(folder, labels)
    if layers:
        encoder = cut_student(encoder, start_layers(encoder, layers))
    return TorchModel(encoder, load_tokenizer(folder, settings.max_length))


def readings_to_try(settings: Settings, model: TorchModel, dev: Sequence[Example]) -> list[Reading]:
    """The first `max_length` tokens of a text, half of them, and more, where dev has longer texts."""
    length = settings.max_length
    wanted = reading_by(settings.model_dump(), length, model.readable_tokens)
    first, half = Reading(max_length=length), Reading(max_length=length // 2)
    is_any_long = bool((windows_filled(model, timed_texts(dev, seed=0)) > 1).any())
    return [first, half] + ([wanted] if is_any_long and wanted != first else [])


def load_as(folder: Path, reading: Reading) -> OnnxModel:
    """The exported model, with another way to read texts."""
    model = OnnxModel.load(folder)
    model.read_as(reading)
    return model
