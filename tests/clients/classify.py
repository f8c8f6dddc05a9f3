"""The labels of texts without metakd, from the files of an exported model.

    python classify.py FOLDER onnxruntime|optimum < texts.json

prints for each text the probability of each label: by ONNX Runtime and tokenizers alone, or by a pipeline of Optimum.
Both cut long texts.
"""

import json
import sys
from pathlib import Path
from typing import Any

INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def by_onnxruntime(folder: Path, file: Path, texts: list[str]) -> list[dict[str, float]]:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer, session = Tokenizer.from_file(str(folder / "tokenizer.json")), onnxruntime.InferenceSession(file)
    tokenizer.enable_truncation(json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["model_max_length"])
    config = json.loads((folder / "config.json").read_text("utf-8"))
    labels, several = config["id2label"], config["problem_type"] == "multi_label_classification"
    answers = []
    for encoding in map(tokenizer.encode, texts):
        names = [entry.name for entry in session.get_inputs()]
        (logits,) = session.run(None, {name: np.array([getattr(encoding, INPUTS[name])]) for name in names})
        powers = np.exp(logits[0] - logits[0].max())
        p = 1 / (1 + np.exp(-logits[0])) if several else powers / powers.sum()
        answers.append({labels[str(i)]: float(share) for i, share in enumerate(p)})
    return answers


def by_optimum(folder: Path, file: Path, texts: list[str]) -> list[dict[str, float]]:
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    model = ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name=file.name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    classify: Any = pipeline("text-classification", model, tokenizer=tokenizer, truncation=True)
    return [{score["label"]: score["score"] for score in classify(text, top_k=None)} for text in texts]


if __name__ == "__main__":
    folder, client = Path(sys.argv[1]), {"onnxruntime": by_onnxruntime, "optimum": by_optimum}[sys.argv[2]]
    (file,) = folder.glob("onnx/*.onnx")
    print(json.dumps(client(folder, file, json.load(sys.stdin))))
