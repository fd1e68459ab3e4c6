"""Record what the real docker client makes of manifest_cases.txt, with a registry of ours (manifests.json)."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.golden.cli.manifest_scene import fill, steps
from tests.support.registryprogram import RegistryProgram


def main() -> None:
    """Write manifests.json."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        registry = RegistryProgram(Path(folder, "registry"))
        try:
            fill(registry.host)
            environment = {"PATH": os.environ["PATH"], "HOME": folder, "DOCKER_CONFIG": f"{folder}/config"}
            for words in steps(registry.host):
                done = subprocess.run(["docker", *words], env=environment, capture_output=True, text=True, check=False, timeout=30)
                shown = [text.replace(registry.host, "REGISTRY").replace(folder, "FOLDER") for text in (done.stdout, done.stderr)]
                results.append([done.returncode, *shown])
        finally:
            registry.close()
    Path(__file__).with_name("manifests.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
