"""A run in four figures and in sentences, how far they hold, and the facts behind them."""

import shlex
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from metakd.config.settings import DEMO_DATA, DEMO_SETTINGS, LORA_RATE, Settings
from metakd.config.settings_file import read_settings_file
from metakd.evaluation.statistics import FEWEST_SEEDS, points
from metakd.evaluation.tables import ALIKE, MEASURES, measure_of, milliseconds, percent
from metakd.methods import BASELINE, METHODS
from metakd.methods.base import has_teacher
from metakd.models.hub import public_name
from metakd.report.facts import Findings
from metakd.utils.errors import flag

NAMED_PUBLICLY = ("base", "teacher", "student", "unlabelled")  # settings that may be private paths
BASELINES = {
    BASELINE: "the same small model fine-tuned on labels alone",
    "tfidf": "TF-IDF with logistic regression, on its domain's text or all domains'",
}


def headline(findings: Findings) -> str:
    """What became what."""
    count, teacher = len(findings.domains), findings.results["average"]["meta_teacher"]
    students = f"{count} small models, one for each domain" if count > 1 else "one small model"
    method = METHODS[findings.run["settings"]["method"]]
    if not has_teacher(method):
        source = "from soft labels" if "soft_labels" in method.needs else "without a teacher"
        return f"One encoder ({base_name(findings)}, {_parameters(teacher)}) became {students}, {source}."
    return f"One teacher ({base_name(findings)}, {_parameters(teacher)}) became {students}."


def figures(findings: Findings) -> list[tuple[str, str, str]]:
    """The four large figures of a run: a value, what it counts, and where it comes from."""
    teacher, student = both = [findings.results["average"][name] for name in ("meta_teacher", "student")]
    measure = measure_of(findings.results)
    kept = f"{percent(student[measure] / (teacher[measure] or 1.0))} %"
    shares = " → ".join(percent(each[measure]) for each in both)
    right = "right: " if measure == "accuracy" else f"{MEASURES[measure]}; texts with exactly their labels: "
    gain = findings.against.get("meta_teacher")
    loss = points_label(gain) if gain else "too few examples to compare"
    sizes = " → ".join(f"{each['bytes'] / 1e6:.1f}" for each in both)
    latencies = " → ".join(milliseconds(each["latency_ms"]) for each in both)
    faster = teacher["latency_ms"]["median"] / student["latency_ms"]["median"]
    return [
        (kept, f"{MEASURES[measure]} kept", f"{shares} percent {right}{loss}."),
        (*_times(teacher["bytes"] / student["bytes"], "smaller", "larger", "size"), f"{sizes} MB"),
        (*_times(faster, "faster", "slower", "speed"), f"{latencies} ms for one text"),
        _gain(findings),
    ]


def verdict(findings: Findings) -> str:
    """The four figures in one line."""
    *figures_, (gain, what, detail) = figures(findings)
    return f"{', '.join(f'{value} {what}' for value, what, _ in figures_)}; {gain} {what}: {detail}"


def _times(ratio: float, more: str, less: str, what: str) -> tuple[str, str]:
    """A ratio as a figure above 1, and what it counts; in words where it is no more than ALIKE."""
    if 1 / ALIKE < ratio < ALIKE:
        return "Same", f"{what} as the teacher"
    return (f"{ratio:.1f}", f"times {more}") if ratio > 1 else (f"{1 / ratio:.1f}", f"times {less}")


def _gain(findings: Findings) -> tuple[str, str, str]:
    """Of the students over the most accurate baseline, where one was trained and enough was scored."""
    average, trained = findings.results["average"], [name for name in BASELINES if name in findings.models]
    if not trained or not findings.against:
        return "–", "gain over a baseline", "Not known: no baseline was trained, or too little was scored."
    measure = measure_of(findings.results)
    best = max(trained, key=lambda name: average[name]["accuracy"])  # of which the gain is
    gain, of_what = findings.against[best], "right" if measure == "accuracy" else MEASURES[measure]
    baseline = f"{BASELINES[best]}, {percent(average[best][measure])} percent {of_what}"
    value, interval = _mean_and_interval(gain)
    worse = gain["interval"][1] < 0
    advice = "; use the baseline, unless other seeds disagree" if worse else "; the baseline may be enough"
    advice = advice if gain["mean"] <= 0 else ""
    detail = f"95\u00a0% interval {interval}{advice}. Baseline: {baseline}."
    more = "points" if measure == "accuracy" else "points of texts with exactly their labels"
    return value, f"{more} over the best baseline", detail


def cautions(findings: Findings) -> list[str]:
    """What should be known before the sentences are passed on."""
    results, notes = findings.results, []
    if findings.against:
        notes.append(
            f"Intervals of differences are paired over the {len(findings.rows):,} scored examples. They cover other "
            f"examples of these domains, but seed {findings.run['settings']['seed']} alone: whether a difference is "
            f"significant takes {FEWEST_SEEDS} seeds (`metakd experiment`)."
        )
    if results["split"] == "dev":
        notes.append("There is no test split, so all scores are on dev: if you choose by them, do not report them.")
    if (without := results["average"]["student"].get("accuracy_without_leaks")) is not None:
        notes.append(
            f"Scored examples that are also in train: {results['leaked_rows']:,}; without them students are right on "
            f"{percent(without)} percent."
        )
    return notes


def points_label(gain: Mapping[str, Any]) -> str:
    """A difference in percentage points of accuracy, with its interval."""
    return "{} percentage points, 95\u00a0% interval {}".format(*_mean_and_interval(gain))


def _mean_and_interval(gain: Mapping[str, Any]) -> list[str]:
    return points(gain).replace("-", "−").split(", ")


def _parameters(average: Mapping[str, Any]) -> str:
    count = average["parameters"]
    return f"{count / 1e6:.1f}\u00a0M parameters" if count >= 1e5 else f"{count:,} parameters"


def base_name(findings: Findings) -> str:
    """Without the folder or the owner that it came from."""
    return str(findings.run["settings"]["base"]).rstrip("/").rsplit("/", 1)[-1]


def command(findings: Findings) -> str:
    """What makes the run again, with each setting that differs from the default: the same after any resume.

    No folder that leads to its files is named. The cache's budget is left out: it is what a machine's disk allowed.
    """
    settings, data = findings.run["settings"], findings.run["data"]
    name = findings.folder.resolve().name
    if data is None:
        return f"metakd reproduce {name} --data the-same-rows  # they were tables in memory"
    is_demo = Path(data).parts[-2:] == DEMO_DATA.parts[-2:]
    start = ["demo"] if is_demo else ["run", "--data", public_name(data)]
    usual = read_settings_file(DEMO_SETTINGS) if is_demo else {}
    deciding = {name: settings.get(name) for name in ("batch_size", "teacher")}  # which other defaults depend on
    chosen = Settings.build(usual | deciding)
    sizes = findings.texts()["train"], len(findings.run["labels"]), bool(findings.run.get("several_labels"))
    defaults = chosen.sized_for(*sizes).model_dump(mode="json")
    defaults["batch_size"] = Settings.build(usual).sized_for(*sizes).batch_size
    defaults |= {name: settings.get(name) for name in ("cache_budget", "seed")} | {"teacher": None}
    if settings.get("lora_rank"):
        defaults["teacher_learning_rate"] = LORA_RATE
    flags = [_flag(name, settings[name]) for name, usual in defaults.items() if settings.get(name, usual) != usual]
    fixed = ["--output", name, "--seed", str(settings["seed"])]
    return shlex.join(["metakd", *start, *fixed, *chain.from_iterable(flags)])


def _flag(name: str, value: Any) -> list[str]:
    """A setting as it is typed."""
    if isinstance(value, bool):
        return [flag(name if value else f"no-{name}")]
    if isinstance(value, Mapping):
        value = [f"{key}={item}" for key, item in value.items()]
    if isinstance(value, list):
        return [flag(name), ",".join(map(str, value))]
    return [flag(name), public_name(str(value)) if name in NAMED_PUBLICLY else str(value)]


def facts(findings: Findings) -> dict[str, str]:
    """Base, student, data, dates, seeds, versions, machine, and the command that makes it again."""
    run, results, teacher = findings.run, findings.results, findings.manifest("meta_teacher")
    settings, environment = run["settings"], results["environment"]
    counts = [f"{split} {count:,}" for split, count in findings.texts().items()]
    versions = [f"{name} {version}" for name, version in environment["versions"].items()]
    minutes = sum(results["seconds"].values()) / 60
    return {
        "Base": public_name(settings["base"]),
        "Student": f"{public_name(settings['student'])}, by {settings['method']}",
        "Data": f"{public_name(run['data'] or 'tables in memory')}: {', '.join(counts)}",
        "Licences": ", ".join(f"{of}: {licence or 'not stated'}" for of, licence in run["licences"].items()),
        "Domains": ", ".join(findings.domains),
        "Labels": ", ".join(findings.labels),
        "Scored on": results["split"],
        "Made": f"{teacher.get('started', 'unknown')[:10]}, in {minutes:.1f} minutes of work",
        "Seed": str(settings["seed"]),
        "Precision": settings["precision"],
        "Machine": f"{environment['processor']}, {environment['cores']} cores, {environment['system']}",
        "Versions": ", ".join([f"Python {environment['python']}", *versions]),
        "Command": command(findings),
    }
