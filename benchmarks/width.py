"""Narrow students: fewer units in the feed-forward layers, at the time of fewer layers.

    python benchmarks/width.py --layers 3 --units 768 --output narrow --data DIR
    metakd experiment main --only meta_kd --data DIR --student narrow ...

Writes a checkpoint of the base's layers (those of `--student layers=N`) with the units that count most in each: the
product of the norms of a unit's weights into it and out of it. Its int8 export is timed beside those of `--student
layers=2` and `layers=3`, all untrained, in turn, one of the data's texts at a time (dev); medians go to
benchmarks/results/width.json, by name. The number of attention heads stays: a BERT's configuration ties their width to
it, so a model of fewer could not be opened by transformers.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from transformers import BertForSequenceClassification

from metakd.config.settings import DEMO_DATA, Settings
from metakd.data.dataset import load_dataset
from metakd.evaluation.costs import measure_latencies
from metakd.export.exporter import folder_bytes
from metakd.export.onnx_format import write_model
from metakd.inference.classifier import Classifier
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models.hub import resolve
from metakd.models.loading import load_encoder, load_tokenizer
from metakd.models.student import cut_config, cut_student, start_layers
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "width.json"
LABELS = ["negative", "positive"]
ROUNDS = 5


def narrowed(model: BertForSequenceClassification, units: int) -> BertForSequenceClassification:
    """The same model with its `units` most important units in each feed-forward layer."""
    config = cut_config(model.config, range(1, model.config.num_hidden_layers + 1))
    config.intermediate_size = units
    narrow, state = BertForSequenceClassification(config), model.state_dict()
    for place in range(config.num_hidden_layers):
        into, out = (f"bert.encoder.layer.{place}.{part}.dense" for part in ("intermediate", "output"))
        importance = state[f"{into}.weight"].norm(dim=1) * state[f"{out}.weight"].norm(dim=0)
        kept = importance.topk(units).indices.sort().values
        state |= {f"{into}.{name}": state[f"{into}.{name}"][kept] for name in ("weight", "bias")}
        state[f"{out}.weight"] = state[f"{out}.weight"][:, kept]
    narrow.load_state_dict(state)
    return narrow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--units", type=int, default=768)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", default=str(DEMO_DATA))
    options = parser.parse_args()
    base, data = resolve(Settings().base), load_dataset(options.data)
    encoder, tokenizer = load_encoder(base, LABELS), load_tokenizer(base, Settings().max_length)
    cut = {n: cut_student(encoder, start_layers(encoder, n)) for n in (2, 3, options.layers)}
    models = {f"layers={n}": model for n, model in cut.items()}
    models[options.output.name] = narrowed(cut[options.layers], options.units)
    models[options.output.name].bert.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    contenders, figures = {}, {}
    with tempfile.TemporaryDirectory() as place:
        for name, model in models.items():
            write_model(TorchModel(model.eval(), tokenizer, None), Path(place) / name, data.splits["dev"], int8=True)
            contenders[name] = Classifier(OnnxModel.load(Path(place) / name, torch.get_num_threads())).predict_examples
            parameters = model.num_parameters() - model.get_input_embeddings().weight.numel()
            size = round(folder_bytes(Path(place) / name) / 1e6, 2)
            figures[name] = {"parameters_outside_embeddings": parameters, "int8_MB": size}
        timed = [measure_latencies(contenders, data.splits["dev"], seed=0) for _ in range(ROUNDS)]
    for name, entry in figures.items():
        medians = sorted(latencies[name].summary()["median"] for latencies in timed)
        entry["ms"] = medians[len(medians) // 2]
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    shape = {"layers": options.layers, "units": options.units}
    write_json(RESULT, before | {options.output.name: {**shape, "int8": figures, "environment": environment()}})
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
