"""Shell commands with the real docker client whose output dockerd 28 has given: one JSON object a line in tests/golden/docker28.

{"run": a bash script, "code": its exit code, "out", "err": what it prints, normalised;
 "needs": "cgroup1" where files of that layout are read;
 "why": why Sampan differs, and then "ours": [code, out, err]}

In a script `own NAME` makes an image like busybox, but of its own; `watch` begins to look for events, and `seen` prints those of what is
named `ev-...` or made of such an image, in no order. What has the label `case` is removed after it.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1] / "golden/docker28"

_PRELUDE = """
own() {
  if [ ! -e own.tar ]; then
    local from; from=$(docker create busybox)
    docker export -o own.tar "$from"
    docker rm "$from" >/dev/null
  fi
  docker import -c 'LABEL case=own' own.tar "$1" >/dev/null
}
watch() {
  since=$(date +%s.%N)
}
seen() {
  docker events --since "$since" --until "$(date +%s.%N)" --format '{{.Type}} {{.Action}} {{.Actor.ID}} {{json .Actor.Attributes}}' |
    grep -e ev- -e '"case":"own"' -e '{"reclaimed":' | sed -E 's/"execDuration":"[0-9]+",//; s/[0-9a-f]{64}/<ID>/g' | LC_ALL=C sort
}
"""
_REPLACED = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<ID>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<SHORT>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| [+-]\d{4} UTC)?"), "<TIME>"),
    (re.compile(r"\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d\b"), "<DATE>"),
    (re.compile(r"(About a |Less than a )?\d* ?(second|minute)s?( ago)?"), "<AGO>"),
    (re.compile(r"\b(172\.17|10\.213)\.\d+\.\d+\b"), "<IP>"),
    (re.compile(r"(?<=on endpoint )[a-z]+_[a-z0-9]+"), "<NAME>"),
    (re.compile(r", dstFd=/proc/thread-self/fd/\d+"), ""),
    (re.compile(r"/(docker|sampan(-[0-9a-f]+)?)/(?=<ID>)"), "/<ENGINE>/"),
    (re.compile(r"(?<=available: )[0-9,-]+"), "<SET>"),
)


def normalised(text: str) -> str:
    """A text without what differs from run to run and from machine to machine."""
    for pattern, word in _REPLACED:
        text = pattern.sub(word, text)
    return text


def load() -> Iterator[dict[str, Any]]:
    """All recorded cases."""
    for path in sorted(DIRECTORY.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            yield json.loads(line)


def run(script: str, docker_path: str, environment: Mapping[str, str], directory: str) -> tuple[int, str, str]:
    """(exit code, output, errors) of a script whose `docker` is the real client; normalised."""
    result = subprocess.run(
        ["bash", "-c", _PRELUDE + script],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        env={**environment, "PATH": f"{os.path.dirname(docker_path)}:{os.environ['PATH']}"},
        cwd=directory,
        check=False,
    )
    return result.returncode, normalised(result.stdout.decode(errors="replace")), normalised(result.stderr.decode(errors="replace"))


def clean_up(docker_path: str, environment: Mapping[str, str]) -> None:
    """Remove what has the label `case`: containers, then images, children before their parents."""
    for list_all, remove in ((["ps"], ["rm", "-fv"]), (["images"], ["rmi", "-f"]), (["images"], ["rmi", "-f"])):
        listed = [docker_path, *list_all, "--all", "--quiet", "--no-trunc", "--filter", "label=case"]
        names = subprocess.run(listed, env=environment, capture_output=True, text=True, check=True).stdout.split()
        if names:
            command = [docker_path, *remove, *dict.fromkeys(names)]
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
