"""Write the table of docs/settings.md: python docs/settings_table.py > docs/settings.md"""

from typing import get_args

from metakd.config.settings import Settings

HEAD = """# Settings

Every setting is a flag (`--gamma2 0.5`), a key of the YAML file given by `--config` (`gamma2: 0.5`) and a field of
`metakd.Settings`. Flags go before the file, the file before the defaults. "Paper" is the value in Pan et al. (ACL 2021)
or in the training scripts of its authors; `examples/paper-amazon.yaml` holds them as a file. This page is made of the
code by `docs/settings_table.py`.

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
for name, field in Settings.model_fields.items():
    assert isinstance(field.json_schema_extra, dict)
    what = f"{field.description}{choices(field.annotation)}"
    print(f"| `{name}` | {shown(field.default)} | {field.json_schema_extra['paper'] or '-'} | {what} |")
