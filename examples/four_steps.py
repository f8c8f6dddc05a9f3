"""The demo's four small models from Python, step by step."""

from pathlib import Path

import metakd
from metakd.cli import DEMO_DATA

settings = metakd.Settings(batch_size=16, teacher_epochs=2, teacher_learning_rate=1e-4, rival=False)
run = metakd.Run.assemble(Path("runs/example"), settings, DEMO_DATA).begin()
metakd.weigh(run)
metakd.teach(run)
folders = metakd.distill_all(run, run.data.domains, run.methods)
print(metakd.evaluate(run)["average"]["student"]["accuracy"])
print(metakd.Classifier.load(folders[0]).predict(["I have bought four copies for friends."]))
