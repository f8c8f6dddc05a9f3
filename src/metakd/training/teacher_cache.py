"""The teacher's outputs for every example: computed once, cached on disk, read by row while students learn."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from metakd.data.tokenization import Array, Batch
from metakd.models.meta_teacher import TeacherLayers, TeacherOutputs, of_classes
from metakd.utils.artifacts import changed_files, read_manifest
from metakd.utils.hardware import Precision

INDEX, IDS = "index.safetensors", "ids.json"
FORMAT = 1  # of the files; with another number, all existing caches are stale
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHARD_BYTES = 64 * 2**20
VECTORS = ("logits", "representation")
LIVE = -1  # the shard of an example whose layers did not fit


class TeacherCache:
    """Logits, h and pooled layers of every example; layers of tokens of as many as fit. Memory-mapped.

    Shards have tokens one after the other, without padding: `hidden.3` (tokens, H), `attention.3` (tokens, A, 2d). The
    index has each example's vectors, and the shard, start and length of its tokens.
    """

    def __init__(self, folder: Path, layers: TeacherLayers) -> None:
        self.layers = layers
        self._index = load_file(folder / INDEX)
        ids = json.loads((folder / IDS).read_text(encoding="utf-8"))
        self._rows = {name: row for row, name in enumerate(ids)}
        self._shards = [load_file(path) for path in sorted(folder.glob("shard-*.safetensors"))]

    @classmethod
    def find(cls, folder: Path, fingerprint: str) -> TeacherCache | None:
        """The complete cache with this fingerprint, or None."""
        manifest = read_manifest(folder)
        if manifest is None or manifest.get("fingerprint") != fingerprint or changed_files(folder, manifest):
            return None
        return cls(folder, TeacherLayers(*map(tuple, manifest["layers"])))

    @classmethod
    def write(
        cls,
        folder: Path,
        ids: Sequence[str],
        outputs: Iterator[tuple[list[int], Batch, TeacherOutputs]],
        layers: TeacherLayers,
        fitting: Array,
        precision: Precision,
    ) -> None:
        """Write the outputs for batches of rows, with `layers` for the rows that are `fitting` (N,)."""
        writer = _Writer(folder, len(ids), layers, DTYPES[precision])
        for rows, batch, batch_outputs in outputs:
            writer.add_vectors(rows, batch_outputs)
            if layers and fitting[rows].any():
                writer.add_layers(rows, batch["attention_mask"], batch_outputs, torch.from_numpy(fitting[rows]))
        writer.close()
        (folder / IDS).write_text(json.dumps(list(ids)), encoding="utf-8")

    def of_classes(self, places: Sequence[int]) -> TeacherCache:
        """The same outputs, with the logits of these classes alone."""
        cache = copy.copy(self)
        cache._index = self._index | {"logits": of_classes(self._index["logits"], places)}
        return cache

    def rows(self, ids: Sequence[str]) -> list[int]:
        """The row of each example; KeyError for one that is not cached."""
        return [self._rows[name] for name in ids]

    def logits(self, rows: Sequence[int]) -> Tensor:
        """The logits for these rows: (B, M)."""
        return self._index["logits"][rows]

    def covers(self, ids: Sequence[str], layers: TeacherLayers, fitting: Array) -> bool:
        """Whether the cache has these examples (N,), and `layers` for exactly those that are `fitting` (N,)."""
        if not (layers.within(self.layers) and self._rows.keys() >= {*ids}):
            return False
        kept = self._index["shard"][self.rows(ids)] != LIVE
        return not layers or bool((kept.numpy() == fitting).all())

    def holds(self, rows: Tensor, layers: TeacherLayers) -> bool:
        """Whether `layers` of all these rows (B,) are cached."""
        if not layers.within(self.layers):
            return False
        return not layers or bool((self._index["shard"][rows.cpu()] != LIVE).all())

    def read(self, rows: Tensor, layers: TeacherLayers) -> TeacherOutputs:
        """The outputs for these rows (B,), on their device, padded with zeros to the longest of them."""
        device, rows = rows.device, rows.cpu()
        columns = [self._index[name][rows].tolist() for name in ("shard", "start", "length")] if layers else []
        spans = [*zip(*columns, strict=True)]

        def tokens(name: str) -> Tensor:  # (B, L, ...)
            parts = [self._shards[shard][name][start : start + length] for shard, start, length in spans]
            return pad_sequence(parts, batch_first=True).to(device)

        return TeacherOutputs(
            **{name: self._index[name][rows].to(device) for name in VECTORS},
            hidden_states={n: tokens(f"hidden.{n}") for n in layers.hidden},
            attention_factors={n: tokens(f"attention.{n}").transpose(1, 2).contiguous() for n in layers.attention},
            pooled_states={n: self._index[f"pooled.{n}"][rows].to(device) for n in layers.pooled},
        )


def layer_bytes(lengths: Array, width: int, layers: TeacherLayers, precision: Precision) -> Array:
    """Disk space for the layers of each example: (N,). Factors are queries and keys, so twice as wide as states."""
    values = width * (len(layers.hidden) + 2 * len(layers.attention))
    return lengths * values * DTYPES[precision].itemsize


def fits(sizes: Array, budget: float) -> Array:
    """Which examples fit into the budget, the shortest first, so that most batches fit completely: (N,) bool."""
    order = sizes.argsort(kind="stable")
    fitting = np.zeros(len(sizes), dtype=bool)
    fitting[order[sizes[order].cumsum() <= budget]] = True
    return fitting


class _Writer:
    """Collects tokens into shards of about 64 MiB, which are written as soon as they are full."""

    def __init__(self, folder: Path, count: int, layers: TeacherLayers, dtype: torch.dtype) -> None:
        self.folder = folder
        self.dtype = dtype
        self.index: dict[str, Tensor] = {
            "shard": torch.full((count,), LIVE, dtype=torch.int32),
            "start": torch.zeros(count, dtype=torch.int64),
            "length": torch.zeros(count, dtype=torch.int32),
        }
        kinds = {"hidden": layers.hidden, "attention": layers.attention}
        self.parts: dict[str, list[Tensor]] = {f"{kind}.{n}": [] for kind, numbers in kinds.items() for n in numbers}
        self.shards = self.tokens = self.bytes = 0

    def add_vectors(self, rows: list[int], outputs: TeacherOutputs) -> None:
        vectors = {name: getattr(outputs, name) for name in VECTORS}
        vectors |= {f"pooled.{layer}": states for layer, states in outputs.pooled_states.items()}
        for name, vector in vectors.items():
            value = vector.float().cpu()
            table = self.index.setdefault(name, torch.zeros(len(self.index["shard"]), *value.shape[1:]))
            table[rows] = value

    def add_layers(self, rows: list[int], attention_mask: Tensor, outputs: TeacherOutputs, kept: Tensor) -> None:
        """Add the real tokens of the rows that are `kept` (B,)."""
        real = attention_mask.bool() & kept.to(attention_mask.device)[:, None]
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
