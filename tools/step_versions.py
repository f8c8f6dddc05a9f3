"""Whether the code of a step has changed since its version in STEP_VERSIONS, which finished runs depend on.

    python tools/step_versions.py                                # what has changed
    python tools/step_versions.py --raise teach distill          # results differ: runs made before are refused
    python tools/step_versions.py --waive weigh teach            # the same, but for rounding: runs made before go on

Exits with 1 while a step is neither raised nor waived. Comments, docstrings and layout do not count.
"""

import argparse
import ast
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE, DIGESTS = ROOT / "src" / "metakd", ROOT / "tests" / "runs" / "step_digests.json"
VERSIONS = SOURCE / "utils" / "artifacts.py"  # the file with STEP_VERSIONS
STEPS = {  # where the code of each step begins
    "weigh": "pipeline.weigh",
    "teach": "pipeline.teach",
    "distill": "pipeline.distill",
    "fit": "export.budget_search",
}
WITHOUT_EFFECT = {  # on a step's results; what they import counts only if another module of the step imports it
    "config.settings": "the values are in the fingerprint",
    "data.dataset": "the rows are in the fingerprint",
    "data.examples": "the rows are in the fingerprint",
    "export.model_cards": "describes models",
    "models.hub": "the files are in the fingerprint",
    "models.model_checks": "refuses",
    "pipeline.plan": "estimates time and disk",
    "pipeline.rechecks": "measures models, and changes none",
    "runs.fingerprints": "compares",
    "runs.folders": "names files",
    "training.trackers": "shows losses",
    "utils.artifacts": "reads and writes files",
    "utils.console": "prints",
    "utils.errors": "refuses",
    "utils.locks": "makes processes wait",
    "utils.signals": "ends processes",
    "utils.validation": "refuses",
}
METHODS = {"methods", "methods.base"}  # only students learn by them
TRAINED = {"experiments.trial", "runs.run", *(f"pipeline.{name}" for name in ("weigh", "teach", "distill", "evaluate"))}
WITHOUT_EFFECT_ON = {  # as above, but for one step; the models that `fit` measures have fingerprints with versions
    "weigh": METHODS,
    "teach": METHODS,
    "distill": set[str](),
    "fit": METHODS | TRAINED,
}


def path_of(module: str) -> Path:
    """The file of a module, named within metakd."""
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str) -> Iterator[str]:
    """The modules of metakd that a module imports."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("metakd."):
            name = (node.module or "").removeprefix("metakd.")
            inner = (f"{name}.{alias.name}" for alias in node.names)
            yield from {each if path_of(each).is_file() else name for each in inner}


def modules(step: str) -> list[str]:
    """The modules whose code decides the results of a step: all that it imports, directly or not, but those above."""
    names, open_ends = set[str](), {STEPS[step]}
    while open_ends:
        names |= open_ends
        open_ends = {each for name in open_ends for each in imports(name)} - names
        open_ends -= WITHOUT_EFFECT.keys() | WITHOUT_EFFECT_ON[step]
    return sorted(names)


def plain(node: Any) -> Any:
    """The syntax tree as lists, the same for every version of Python, without docstrings."""
    if isinstance(node, list):
        return [plain(each) for each in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
        fields["body"] = fields["body"][1:]
    return [type(node).__name__, *([name, plain(value)] for name, value in fields.items() if value not in (None, []))]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def digest(step: str) -> str:
    """SHA-256 over the code of a step."""
    return hashlib.sha256(json.dumps([[name, plain(tree(name))] for name in modules(step)]).encode()).hexdigest()


def version(step: str) -> int:
    """The version in STEP_VERSIONS."""
    (number,) = re.findall(rf'^STEP_VERSIONS = .*"{step}": (\d+)', VERSIONS.read_text(encoding="utf-8"), re.MULTILINE)
    return int(number)


def state(step: str) -> dict[str, Any]:
    """What DIGESTS has of a step whose change was raised or waived."""
    return {"version": version(step), "digest": digest(step)}


def recorded() -> dict[str, Any]:
    """The content of DIGESTS; nothing if a merge has left a conflict in it."""
    try:
        return dict(json.loads(DIGESTS.read_text(encoding="utf-8")))
    except ValueError:
        return {}


def changed() -> list[str]:
    """The steps whose code differs from what DIGESTS has."""
    known = recorded()
    return [step for step in STEPS if known.get(step) != state(step)]


def message(steps: list[str]) -> str:
    """What to do about them."""
    names = " ".join(steps)
    return (
        f"The code of {names} has changed. If results may differ: python tools/step_versions.py --raise {names}\n"
        f"If they are the same, but for rounding:       python tools/step_versions.py --waive {names}"
    )


def raise_version(step: str) -> None:
    text = VERSIONS.read_text(encoding="utf-8")
    new = re.sub(rf'^(STEP_VERSIONS = .*"{step}": )\d+', rf"\g<1>{version(step) + 1}", text, flags=re.MULTILINE)
    VERSIONS.write_text(new, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raise", nargs="+", choices=STEPS, default=[], dest="raised", metavar="STEP")
    parser.add_argument("--waive", nargs="+", choices=STEPS, default=[], dest="waived", metavar="STEP")
    options = parser.parse_args()
    for step in options.raised:
        raise_version(step)
    decided = {*options.raised, *options.waived}
    known = recorded() | {step: state(step) for step in decided}
    if decided:
        DIGESTS.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    if steps := changed():
        print(message(steps))
        return 1
    print("Every step's code is that of its version.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
