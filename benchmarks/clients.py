"""Whether exported models say the same everywhere: metakd, ONNX Runtime with tokenizers, Optimum, transformers.js.

    make clients test-extras
    metakd demo --output runs/demo  # or any other run
    python benchmarks/clients.py --run runs/demo --work runs/clients [--most 200] [--forms [float32 int8]]

Exports the students of a finished run in float32 and in int8, whole and compact. Each student reads the dev texts of
its domain (at most --most of them), one at a time, by each client. Adds to benchmarks/results/clients.json, by data:
the settings of the run that are not defaults, what calibration brought on its dev, and by form and client the texts,
those with the same label as metakd's, and the largest difference of a probability. Plain pipelines read the first
window of a text, and so does metakd where they are compared; `transformers.js, windows` reads whole texts, as the web
page does.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metakd import Classifier, Run, Settings
from metakd.data.splits import of_domain
from metakd.data.tokenization import Array
from metakd.export.exporter import export
from metakd.runs.folders import RESULTS_FILE
from metakd.utils.artifacts import read_manifest, read_run, write_json
from metakd.utils.hardware import environment

ROOT = Path(__file__).parents[1]
SCRIPTS, OPTIMUM = ROOT / "tests" / "clients", ROOT / ".venv-optimum" / "bin" / "python"
RESULT = ROOT / "benchmarks" / "results" / "clients.json"
FORMS: dict[str, dict[str, Any]] = {
    "float32": {"int8": False},
    "int8": {"int8": True},
    "float32, compact": {"int8": False, "compact": True},
    "int8, compact": {"int8": True, "compact": True},
}


def by_metakd(folder: Path, texts: Sequence[str], **reading: str) -> Array:
    classifier = Classifier.from_pretrained(folder, **reading)  # type: ignore[arg-type]
    return np.concatenate([classifier.predict_proba([text]) for text in texts])


def answers_of(program: Path | str, script: str, how: str) -> Callable[[Path, Sequence[str]], Array]:
    """Another library, run by a script of tests/clients."""

    def predict(folder: Path, texts: Sequence[str]) -> Array:
        command = [str(program), str(SCRIPTS / script), str(folder), how]
        done = subprocess.run(command, input=json.dumps([*texts]), stdout=subprocess.PIPE, text=True, check=True)
        labels = Classifier.from_pretrained(folder).labels
        return np.array([[answer[label] for label in labels] for answer in json.loads(done.stdout)])

    return predict


def agreement(folders: Mapping[str, Path], texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Of each client with metakd, over the texts of all domains."""
    clients = {
        "onnxruntime, tokenizers": (answers_of(sys.executable, "classify.py", "onnxruntime"), {"long_texts": "first"}),
        "optimum": (answers_of(OPTIMUM, "classify.py", "optimum"), {"long_texts": "first"}),
        "transformers.js": (answers_of("node", "classify.mjs", "pipeline"), {"long_texts": "first"}),
        "transformers.js, windows": (answers_of("node", "classify.mjs", "windows"), {}),
    }
    figures = {}
    for name, (client, reading) in clients.items():
        ours = np.concatenate([by_metakd(folder, texts[domain], **reading) for domain, folder in folders.items()])
        theirs = np.concatenate([client(folder, texts[domain]) for domain, folder in folders.items()])
        figures[name] = {
            "texts": len(ours),
            "same_label": int((ours.argmax(1) == theirs.argmax(1)).sum()),
            "largest_difference": float(f"{np.abs(ours - theirs).max():.2g}"),
        }
        print(name, figures[name], flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--most", type=int, default=200)
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=[*FORMS])
    options = parser.parse_args()
    begun = read_run(options.run)
    run = Run.assemble(options.run, Settings.build(begun["settings"]), begun["data"])
    texts = {d: [e.text for e in of_domain(run.data.splits["dev"], d)][: options.most] for d in run.data.domains}
    forms = {}
    for form, how in ((form, FORMS[form]) for form in options.forms):
        output = options.work / form.replace(", ", "-")
        if not output.exists():
            export(run, output, force=True, **how)
        if (read_manifest(output) or {}).get("run") != run.description():
            sys.exit(f"{output} was exported from another run, or before that changed: choose another --work")
        print(form, flush=True)
        forms[form] = agreement({d: output / run.folders.student(run.settings.method, d).name for d in texts}, texts)
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    calibration = json.loads((options.run / RESULTS_FILE).read_text(encoding="utf-8"))["calibration"]
    defaults = Settings().model_dump(mode="json")
    chosen = {name: value for name, value in begun["settings"].items() if value != defaults[name]}
    name = Path(run.data.name).name
    forms = known.get(name, {}).get("forms", {}) | forms
    figures = {"settings": chosen, "calibration": calibration, "forms": forms, "environment": environment()}
    write_json(RESULT, known | {name: figures})


if __name__ == "__main__":
    main()
