"""The shape of the code: packages import from those above them in the list, files stay small, names are plain."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from conftest import as_row, toy_examples, write_rows

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "metakd"
PACKAGES = (  # each imports from those before it alone
    *("losses", "prototypes", "utils", "data", "config", "models", "inspection", "methods", "training", "inference"),
    *("evaluation", "runs", "labelling", "pipeline", "experiments", "export", "report", "cli"),
)
MOST_LINES, MOST_MODULES, LONGEST_FUNCTION = 300, 12, 45
NO_NAMES_OUTSIDE_TESTS = {"own", "found", "told", "said", "given", "mark", "line", "look"}  # they do not name the thing
NO_NAMES = {"rival", "council", "quiz", "lesson", "school", "stranger"}
NO_PROSE = rf"(?i)(?<!--)\b(?:(?:{'|'.join(NO_NAMES)})(?:z?e?s|zed)?|telling terms|anew|nevertheless|whoever)\b"
FOLDERS = ("src", "benchmarks", "docs", "examples", "tools", "tests")
TEXTS = (".py", ".md", ".yaml", ".toml", ".sh", ".css", ".js", ".j2", ".svg")


def modules() -> dict[str, Path]:
    """Every module but those that only hold their package's docstring, by its name within metakd."""
    paths = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    return {
        name.removesuffix(".__init__"): path for name, path in paths.items() if name not in ("__init__", "__main__")
    }


def imports(path: Path) -> Iterator[str]:
    """The modules of metakd that a file names in any of its imports."""
    known = modules()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "metakd":
            module = (node.module or "").removeprefix("metakd").lstrip(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                yield inner if inner in known else module
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("metakd.") for a in node.names if a.name.startswith("metakd."))


def test_every_package_has_its_place() -> None:
    assert {name.split(".")[0] for name in modules()} == set(PACKAGES)


def test_packages_import_from_those_above_alone() -> None:
    upward = [
        f"{name} imports {imported}"
        for name, path in modules().items()
        for imported in imports(path)
        if PACKAGES.index(imported.split(".")[0]) > PACKAGES.index(name.split(".")[0])
    ]
    assert upward == []


def test_no_modules_import_each_other() -> None:
    TopologicalSorter({name: set(imports(path)) for name, path in modules().items()}).prepare()


def test_files_folders_and_functions_stay_small_and_packages_say_what_they_hold() -> None:
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= MOST_LINES, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= LONGEST_FUNCTION, f"{name}.{node.name} has {length} lines"
    for folder in {path.parent for path in modules().values()} - {SOURCE}:
        assert len({*folder.glob("*.py")} - {folder / "__init__.py"}) <= MOST_MODULES, folder.name
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder.name


def names(path: Path) -> Iterator[str]:
    """The names that a file defines or assigns, and the keywords that it passes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(getattr(node, "ctx", None), ast.Load):
            yield from (getattr(node, kind, None) or "" for kind in ("id", "attr", "arg", "name", "asname", "rest"))


def texts(folders: Iterable[str]) -> Iterator[Path]:
    """The files of text in these folders, without results, and this file, which has to name what it bans."""
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*")):
        if path.suffix in TEXTS and path != Path(__file__) and ROOT / "benchmarks" / "results" not in path.parents:
            yield path


@pytest.mark.parametrize(
    ("folders", "banned"),
    [(FOLDERS[:-1], NO_NAMES_OUTSIDE_TESTS), (FOLDERS, NO_NAMES | {f"{word}s" for word in NO_NAMES})],
)
def test_names_are_plain(folders: tuple[str, ...], banned: set[str]) -> None:
    """No word of a name is banned, however the name joins its words: some_name, SomeName, SOME_NAME."""
    listed = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in texts(folders)
        if path.suffix == ".py"
        for name in sorted({*names(path)})
        if banned & set(re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))
    ]
    assert listed == []


def test_prose_is_plain() -> None:
    """The changelog alone may name flags that are no more."""
    pages = [path for path in ROOT.iterdir() if path.suffix == ".md" or path.name == "Makefile"]
    listed = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in [*pages, *texts(FOLDERS)]
        for word in sorted({*re.findall(NO_PROSE, path.read_text(encoding="utf-8"))})
    ]
    assert listed == []


def test_inspect_needs_no_torch(tmp_path: Path, base: Path) -> None:
    """Commands that need the whole extra are in test_light_install.py."""
    blocked = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "accelerate"):
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Nowhere())
from metakd.cli.main import main
main()
"""
    rows = write_rows(tmp_path / "d.jsonl", [as_row(e) for e in toy_examples(120, 0, "t")])
    words = [sys.executable, "-c", blocked, "inspect", str(rows), "--base", str(base)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, metakd.cli.main; print(sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
