"""What the teacher says of each example: said once, kept on disk, read by row while students learn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from metakd.data.tokenization import Array, Batch
from metakd.models.meta_teacher import TeacherLayers, TeacherOutputs
from metakd.utils.artifacts import changed_files, read_manifest
from metakd.utils.hardware import Precision

INDEX, IDS = "index.safetensors", "ids.json"
FORMAT = 1  # of the files; another number makes all caches that are there stale
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHARD_BYTES = 64 * 2**20
VECTORS = ("logits", "representation")
LIVE = -1  # the shard of an example whose layers did not fit


class _Span(NamedTuple):
    """Where the tokens of one example lie."""

    shard: int
    start: int
    length: int


class TeacherCache:
    """Logits and h of every example; hidden states and attention factors of as many as fit, memory-mapped.

    Shards hold tokens one after the other, without padding: `hidden.3` (tokens, H), `attention.3` (tokens, A, 2d).
    """

    def __init__(self, folder: Path, layers: TeacherLayers) -> None:
        self.layers = layers
        self._index = load_file(folder / INDEX)
        ids = json.loads((folder / IDS).read_text(encoding="utf-8"))
        self._rows = {name: row for row, name in enumerate(ids)}
        self._shards: list[dict[str, Tensor]] = [load_file(path) for path in sorted(folder.glob("shard-*.safetensors"))]

    @classmethod
    def find(cls, folder: Path, mark: str) -> TeacherCache | None:
        """The cache that was written under `mark`, or None where there is none, another, or a torn one."""
        manifest = read_manifest(folder)
        if manifest is None or manifest.get("fingerprint") != mark or changed_files(folder, manifest):
            return None
        return cls(folder, TeacherLayers(*map(tuple, manifest["layers"])))

    @classmethod
    def write(
        cls,
        folder: Path,
        ids: Sequence[str],
        said: Iterator[tuple[list[int], Batch, TeacherOutputs]],
        layers: TeacherLayers,
        fitting: Array,
        precision: Precision,
    ) -> None:
        """Write what was `said` of batches of rows, with the layers of those `fitting` (N,)."""
        writer = _Writer(folder, len(ids), layers, precision)
        for rows, batch, outputs in said:
            writer.add(rows, batch, outputs, fitting)
        writer.close()
        (folder / IDS).write_text(json.dumps(list(ids)), encoding="utf-8")

    @property
    def ids(self) -> set[str]:
        return set(self._rows)

    def covers(self, ids: Sequence[str], layers: TeacherLayers, fitting: Array) -> bool:
        """Whether it was made of these examples (N,), for these layers, with the layers of those `fitting` (N,)."""
        if not (layers.within(self.layers) and self.ids >= {*ids}):
            return False
        kept = self._index["shard"][self.rows(ids)] != LIVE
        return not layers or bool((kept.numpy() == fitting).all())

    def rows(self, ids: Sequence[str]) -> list[int]:
        """The row of each example; KeyError for one that the cache was not made of."""
        return [self._rows[name] for name in ids]

    def holds(self, rows: Tensor, layers: TeacherLayers) -> bool:
        """Whether `layers` of all these rows (B,) are here."""
        if not layers:
            return True
        return layers.within(self.layers) and bool((self._index["shard"][rows.cpu()] != LIVE).all())

    def read(self, rows: Tensor, layers: TeacherLayers) -> TeacherOutputs:
        """What the teacher said of these rows (B,), on their device, padded with zeros to the longest of them."""
        device, rows = rows.device, rows.cpu()
        known = {name: self._index[name][rows].to(device) for name in VECTORS}
        if not layers:
            return TeacherOutputs(**known, hidden_states={}, attention_factors={})
        places = (self._index[name][rows].tolist() for name in ("shard", "start", "length"))
        spans = [_Span(*place) for place in zip(*places, strict=True)]
        longest = max(span.length for span in spans)
        dtype = next(iter(self._shards[0].values())).dtype
        hidden: dict[int, Tensor] = {}
        attention: dict[int, Tensor] = {}
        for layer in layers.hidden:
            (width,) = self._shards[0][f"hidden.{layer}"].shape[1:]
            hidden[layer] = torch.empty(len(spans), longest, width, dtype=dtype)
            self._fill(hidden[layer], f"hidden.{layer}", spans)
        for layer in layers.attention:
            heads, width = self._shards[0][f"attention.{layer}"].shape[1:]
            attention[layer] = torch.empty(len(spans), heads, longest, width, dtype=dtype)
            self._fill(attention[layer].transpose(1, 2), f"attention.{layer}", spans)
        return TeacherOutputs(
            **known,
            hidden_states={layer: states.to(device) for layer, states in hidden.items()},
            attention_factors={layer: factors.to(device) for layer, factors in attention.items()},
        )

    def _fill(self, padded: Tensor, name: str, spans: Sequence[_Span]) -> None:
        """Copy the tokens of each span into its row of `padded` (B, L, ...), with zeros after them."""
        for row, span in zip(padded, spans, strict=True):
            row[: span.length] = self._shards[span.shard][name][span.start : span.start + span.length]
            row[span.length :] = 0


def layer_bytes(lengths: Array, width: int, layers: TeacherLayers, precision: Precision) -> Array:
    """Disk that the layers of each example need: (N,). Factors are queries and keys, so twice as wide as states."""
    values = width * (len(layers.hidden) + 2 * len(layers.attention))
    return lengths * values * DTYPES[precision].itemsize


def fits(sizes: Array, budget: float) -> Array:
    """Which examples fit into the budget, the shortest first, so that most batches are whole: (N,) bool."""
    order = sizes.argsort(kind="stable")
    fitting = np.zeros(len(sizes), dtype=bool)
    fitting[order[sizes[order].cumsum() <= budget]] = True
    return fitting


def _names_of(layers: TeacherLayers) -> list[str]:
    return [f"{kind}.{layer}" for kind, chosen in layers._asdict().items() for layer in chosen]


class _Writer:
    """Collects tokens into shards of some 64 MiB, written as soon as they are full."""

    def __init__(self, folder: Path, count: int, layers: TeacherLayers, precision: Precision) -> None:
        self.folder = folder
        self.layers = layers
        self.dtype = DTYPES[precision]
        self.index: dict[str, Tensor] = {
            "shard": torch.full((count,), LIVE, dtype=torch.int32),
            "start": torch.zeros(count, dtype=torch.int64),
            "length": torch.zeros(count, dtype=torch.int32),
        }
        self.parts: dict[str, list[Tensor]] = {name: [] for name in _names_of(layers)}
        self.shards = self.tokens = self.bytes = 0

    def add(self, rows: list[int], batch: Batch, outputs: TeacherOutputs, fitting: Array) -> None:
        for name in VECTORS:
            value = getattr(outputs, name).float().cpu()
            table = self.index.setdefault(name, torch.zeros(len(self.index["shard"]), *value.shape[1:]))
            table[rows] = value
        kept = torch.from_numpy(fitting[rows])
        if not self.layers or not kept.any():
            return
        real = batch["attention_mask"].bool() & kept.to(batch["attention_mask"].device)[:, None]
        for layer, states in outputs.hidden_states.items():
            self.parts[f"hidden.{layer}"].append(states[real].to("cpu", self.dtype))
        for layer, factors in outputs.attention_factors.items():
            self.parts[f"attention.{layer}"].append(factors.transpose(1, 2)[real].to("cpu", self.dtype))
        lengths = real.sum(1).cpu()
        places = torch.tensor(rows)[kept]
        self.index["length"][places] = lengths[kept].int()
        self.index["start"][places] = self.tokens + lengths.cumsum(0)[kept] - lengths[kept]
        self.index["shard"][places] = self.shards
        self.tokens += int(lengths.sum())
        self.bytes += sum(parts[-1].nbytes for parts in self.parts.values())
        if self.bytes >= SHARD_BYTES:
            self._end_shard()

    def close(self) -> None:
        if self.tokens:
            self._end_shard()
        save_file(self.index, self.folder / INDEX)

    def _end_shard(self) -> None:
        whole = {name: torch.cat(parts) for name, parts in self.parts.items()}
        save_file(whole, self.folder / f"shard-{self.shards:05d}.safetensors")
        self.parts = {name: [] for name in self.parts}
        self.shards, self.tokens, self.bytes = self.shards + 1, 0, 0
