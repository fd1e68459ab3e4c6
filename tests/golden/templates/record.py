"""Record what the real docker client makes of templates: record.py TEMPLATES (one a line) with DOCKER_HOST at a dockerd."""

import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Write version.json beside this file."""
    data = json.loads(subprocess.run(["docker", "version", "--format", "json"], capture_output=True, check=True, timeout=30).stdout)
    cases = []
    for template in Path(sys.argv[1]).read_text().split("\n"):
        if not template:
            continue
        done = subprocess.run(["docker", "version", "--format", template], capture_output=True, check=False, timeout=30)
        out, err = done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="surrogateescape")
        if "0xc000" not in out:  # an address differs from run to run
            cases.append({"template": template, "exit": done.returncode, "stdout": out, "stderr": err})
    Path(__file__).with_name("version.json").write_text(json.dumps({"data": data, "cases": cases}, indent=1))


if __name__ == "__main__":
    main()
