"""Record the requests that docker's own CLI makes for a list of command lines: makes requests.json anew.

python tests/golden/cli/record_requests.py [DOCKER]
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sampan.testing.fakedaemon import FakeDaemon

HERE = Path(__file__).parent
GOLDEN = HERE / "requests.json"
CASES = """
rm c
rm -f c d
rm -fvl /c/
stop c
stop -t 3 -s INT c
stop -t -1 c
restart c
restart -t 0 -s 9 c d
kill c
kill -s HUP c
pause c
unpause c d
wait c
rename a b
top c
top c -o pid,cmd
port c
start c d
start -a c
start -ai --detach-keys ctrl-a c
start --checkpoint x c
logs c
logs -ft -n 5 --details c
logs --tail 0 --since 1136073845 --until 1136073846.5 c
logs --since 2006-01-02T15:04:05.25Z c
attach --no-stdin c
attach --detach-keys ctrl-a,b c
exec c ls -l
exec -i -e A=1 -e B -u 1:2 -w /x --privileged --detach-keys ctrl-a c sh -c 'echo $A'
exec -t c tty
exec -d c sleep 1
exec -dt c sleep 1
run busybox true
run -d --rm busybox true
run -d busybox true
run --rm -i busybox cat
run -t --name x busybox
run -a stdin -i busybox cat
run -a stderr busybox cat
run --detach-keys a busybox true
run --platform linux/arm64 --name x busybox
container stop c
container exec c true
network create n
network create --subnet 10.1.0.0/24 --gateway 10.1.0.9 --ip-range 10.1.0.128/25 --aux-address b=10.1.0.2 --aux-address a=10.1.0.3 n
network create --subnet 10.1.0.0/24,10.2.0.0/24 --gateway 10.2.0.1 -o a=b -o c=d --label x=y --label z --internal --attachable n
network create --ipv6 --ipv4=false --driver macvlan --ipam-driver x --ipam-opt k=v --scope global --config-from c n
network create --subnet 10.1.0.0/24 --subnet 10.1.0.0/16 n
network create --gateway 10.1.0.1 n
network connect n c
network connect --alias a,b --alias c --ip 10.1.0.5 --ip6 fd00::1 --link x:y --driver-opt a=b --gw-priority 3 n c
network disconnect n c
network disconnect -f n c
network prune -f
network prune -f --filter label=a --filter until=1h
""".strip().splitlines()


def sent(command: list[str], arguments: str, folder: Path) -> list[dict[str, Any]]:
    """What a client asks of a scripted daemon, without the pings, in the order of arrival."""
    path = folder / "requests.sock"
    path.unlink(missing_ok=True)
    environment = {**os.environ, "DOCKER_HOST": f"unix://{path}", "HOME": str(folder)}
    environment.pop("DOCKER_API_VERSION", None)
    with FakeDaemon(path, lambda _: 0, version="1.50") as daemon:
        if arguments.startswith("attach"):
            daemon.mark_running()
        if arguments.startswith("wait"):
            daemon.mark_ended()
        subprocess.run(
            [*command, *shlex.split(arguments)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
        return [request for request in daemon.log if not request["path"].endswith("_ping")]


def main() -> None:
    """Write the golden file."""
    docker = sys.argv[1:] or ["docker"]
    with tempfile.TemporaryDirectory() as folder:
        recorded = [{"arguments": arguments, "requests": sent(docker, arguments, Path(folder))} for arguments in CASES]
    GOLDEN.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(recorded)} cases")


if __name__ == "__main__":
    main()
