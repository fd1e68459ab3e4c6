"""What a container can see of a process that joins it, between its birth and its execve (CVE-2016-9962, CVE-2024-21626)."""

import contextlib
import os
from typing import Any

import pytest

pytestmark = pytest.mark.root

WATCH = """
while :; do for p in /proc/[0-9]*; do
  exe=$(readlink $p/exe)
  case $exe in
    /bin/busybox) continue;;
    ?*) echo "LEAK $p/exe $exe";;
  esac
  ( : <$p/environ ) || { grep -q 'State:.[RS]' $p/status && echo opaque; }
  for n in 0 1 2 3 4 5 6 7 8 9; do
    found=$(readlink $p/fd/$n) && case $found in
      pipe:*|/dev/null|/proc/*/environ) ;;
      *) echo "LEAK $p/fd/$n $found";;
    esac
  done
done; done 2>/dev/null
"""
"""Says what it can read of a process that is not busybox yet, and whether it saw one that lets nothing be read.

What busybox itself has open is pipes and the null device; whatever else is seen was the runtime's.
"""


def test_a_joining_process_shows_nothing_of_the_host(box: Any) -> None:
    watching = box.start("sh", "-c", WATCH)
    assert "error" not in watching.reply, watching.reply
    os.set_blocking(watching.ends["stdout"], False)
    said = b""
    for _ in range(400):
        box.supervisor.finish(box.exec(watching, "true"))
        with contextlib.suppress(BlockingIOError):
            said += os.read(watching.ends["stdout"], 65536)
        if said.count(b"opaque") >= 20:
            break
    assert b"LEAK" not in said, said.decode()
    assert b"opaque" in said, "no joining process was ever seen: this test has shown nothing"
