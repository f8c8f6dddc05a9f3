"""The shape of the code: imports go down the floors, and files stay short."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "metakd"
FLOORS = [
    ["hardware", "lacks"],
    ["errors"],
    ["progress"],
    ["processes", "stops"],
    ["artifacts", "sharing"],
    ["cards", "locks"],
    ["losses"],
    ["prototypes"],
    ["packed", "strangers"],
    ["readers"],
    ["sources"],
    ["config", "examples"],
    ["releases"],
    ["domains", "overview"],
    ["attention", "batching", "checkpoints", "linear"],
    ["doctor", "inspection"],
    ["embeddings", "encoders", "resuming", "tracking", "windows"],
    ["meta_teacher", "students", "vocabulary"],
    ["teacher_cache"],
    ["methods.base"],
    ["methods.fine_tuned", "methods.meta_kd", "methods.metadistil"],
    ["methods.cross_domain", "methods.fine_tuned_shared", "methods.hrkd"],
    ["methods"],
    ["engine", "evaluation", "fingerprints", "onnx_graph", "onnx_model", "passes"],
    ["runs", "results", "torch_model"],
    ["inference"],
    ["answers", "checks", "teachers"],
    ["corpus"],
    ["scoring"],
    ["distillation"],
    ["planning"],
    ["export", "pipeline"],
    ["candidates", "reproducing"],
    ["fit"],
    ["comparison", "grids"],
    ["cells", "rows"],
    ["experiments"],
    ["report.canvas", "report.facts"],
    ["report.compare", "report.evidence", "report.network", "report.summary", "report.tradeoff"],
    ["report.lineage", "report.pictures"],
    ["report.details"],
    ["report.page"],
    ["report"],
    ["cli_options"],
    ["cli_assembly", "cli_data", "cli_deploy", "cli_experiment", "cli_report"],
    ["cli"],
    ["__main__"],
]
HEIGHT = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def files() -> dict[str, Path]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path
    return {name: path for name, path in found.items() if name != "__init__"}


def height(name: str) -> int:
    return HEIGHT.get(name, HEIGHT["methods.meta_kd"])


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "metakd":
            module = (node.module or "").removeprefix("metakd").lstrip(".")
            whole = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {name if name in HEIGHT else module for name in whole}
    return found - {""}


def test_every_file_has_its_floor() -> None:
    """A new method needs no new line here: all of methods/ but its protocol stands on one floor."""
    assert {name for name in files() if not name.startswith("methods.")} <= set(HEIGHT)
    assert set(HEIGHT) <= set(files())


def test_no_file_imports_upwards() -> None:
    for name, path in files().items():
        for imported in imports(path):
            assert height(imported) < height(name), f"{name} imports {imported}"


def test_the_ground_floor_knows_no_model_no_config_no_file() -> None:
    for name in ("losses", "prototypes"):
        assert imports(files()[name]) == set()


def test_files_and_functions_stay_short() -> None:
    for name, path in files().items():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 300, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 45, f"{name}.{node.name} has {length} lines"


def test_without_the_extra_every_command_names_it(tmp_path: Path) -> None:
    """A machine with the base install alone: torch and the rest cannot be imported."""
    blocked = (
        "import sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'accelerate', 'sklearn']);"
        "from metakd.cli import main; main()"
    )
    (tmp_path / "d.jsonl").write_text("{}")
    model = ("predict", ".", "--input", "d.jsonl", "--output", "o.jsonl")
    data = ("--data", "d.jsonl", "--output", "o")
    for command in (("run", *data), ("run", "--dry-run", *data), ("weigh", *data), model, ("methods",)):
        line = [sys.executable, "-c", blocked, *command]
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "pip install 'metakd[train]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_inspect_needs_no_torch(tmp_path: Path, checkpoint: Callable[..., Path]) -> None:
    blocked = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "accelerate"):
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Nowhere())
from metakd.cli import main
main()
"""
    rows = "".join(f'{{"text": "a {i}", "label": "{i % 2}", "domain": "{i % 3}"}}\n' for i in range(120))
    (tmp_path / "d.jsonl").write_text(rows)
    line = [sys.executable, "-c", blocked, "inspect", str(tmp_path / "d.jsonl"), "--base", str(checkpoint())]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, metakd.cli; print(sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
