"""Write the table of docs/settings.md: python docs/settings_table.py > docs/settings.md"""

from typing import get_args

from metakd.config.groups import GROUPS
from metakd.config.settings import Settings

HEAD = """# Settings

Give a setting as a flag (`--gamma2 0.5`), as a key of the YAML file of `--config` (`gamma2: 0.5`), or as a field of
`metakd.Settings`. A flag overrides the file, and the file overrides the default. [Choosing
settings](choosing-settings.md) says which to change. With under 4,000 labelled training texts,
`batch_size`, `teacher_learning_rate`, `teacher_epochs` and `shared_epochs` have [other
defaults](howto/run.md#few-texts-many-labels); with 20 labels or more, `teacher_learning_rate`.

"Paper" is the value in Pan et al. (ACL 2021) or in the training scripts of its authors. `examples/paper-amazon.yaml`
has them as a file. `docs/settings_table.py` makes this page from the code.
"""
TABLE = """
| setting | default | paper | what it is |
|---|---|---|---|"""


def shown(value: object) -> str:
    if value is None or value == {}:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def choices(annotation: object) -> str:
    names = [f"`{choice}`" for choice in get_args(annotation) if isinstance(choice, str)]
    return f" One of {', '.join(names)}." if names else ""


print(HEAD)
for group, names in GROUPS.items():
    print(f"\n## {group}\n{TABLE}")
    for name in names:
        field = Settings.model_fields[name]
        assert isinstance(field.json_schema_extra, dict)
        what = f"{field.description}{choices(field.annotation)}"
        print(f"| `{name}` | {shown(field.default)} | {field.json_schema_extra['paper'] or '-'} | {what} |")
