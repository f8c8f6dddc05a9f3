"""Where the files of exported models are: as transformers.js and Optimum look for them."""

from pathlib import Path

WHOLE, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"  # weights in float32, in int8
EXPORT, MODEL = "export", "exported_model"  # the steps that wrote a folder of exports, and that of one model
FIT_FILE = "fit.json"  # what `fit` writes beside its models
TOKENIZER_FILE, DESCRIPTION_FILE = "tokenizer.json", "model.json"


def onnx_file(folder: Path) -> Path | None:
    """The ONNX file of an exported model; None for any other folder, also one of the hub with ONNX files of its own."""
    if not (folder / DESCRIPTION_FILE).is_file():
        return None
    return next((folder / name for name in (WHOLE, QUANTIZED) if (folder / name).is_file()), None)
