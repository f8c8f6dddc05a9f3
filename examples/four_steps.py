"""The demo's four small models from Python, step by step."""

from pathlib import Path

import metakd
from metakd.config.settings import DEMO_DATA, DEMO_SETTINGS
from metakd.config.settings_file import read_settings_file

settings = metakd.Settings.build(read_settings_file(DEMO_SETTINGS) | {"baseline": False})
run = metakd.Run.assemble(Path("runs/example"), settings, DEMO_DATA).begin()
metakd.weigh(run)
metakd.teach(run)
folders = metakd.distill_all(run, run.data.domains, run.methods)
print(metakd.evaluate(run)["average"]["student"]["accuracy"])
print(metakd.Classifier.from_pretrained(folders[0]).predict(["I have bought four copies for friends."]))
