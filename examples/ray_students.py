"""Each domain's student as a task of Ray, after `metakd weigh` and `metakd teach` with --keep-cache.

python examples/ray_students.py OUTPUT        # a folder that all nodes see; Ray: pip install ray
"""

import json
import subprocess
import sys
from pathlib import Path

import ray


@ray.remote(num_cpus=2)
def distill(output: str, domain: str) -> str:
    command = [sys.executable, "-m", "metakd", "distill", "--output", output, "--domain", domain]
    subprocess.run(command, check=True)
    return domain


if __name__ == "__main__":
    folder = str(Path(sys.argv[1]).absolute())
    first, *others = json.loads(Path(folder, "run.json").read_text(encoding="utf-8"))["domains"]
    print(ray.get(distill.remote(folder, first)))  # and with it what all share: the start, and the teacher cache
    for task in [distill.remote(folder, domain) for domain in others]:
        print(ray.get(task))
