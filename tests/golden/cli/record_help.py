"""Record the help of every command of the real docker client that is not swarm's, as it is with every flag shown (help/*.txt)."""

import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path

from stub import Handler, Stub

HERE = Path(__file__).parent
NOT_HERE = {"config", "node", "secret", "service", "stack", "swarm", "trust"}


class Experimental(Handler):
    """The fixed answers of a daemon that hides no flag."""

    def end_headers(self) -> None:
        """Say so in every answer."""
        self.send_header("Docker-Experimental", "true")
        super().end_headers()


def main() -> None:
    """Walk the commands, and write a file for each page."""
    with tempfile.TemporaryDirectory() as folder, Stub(f"{folder}/docker.sock", Experimental) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "DOCKER_HOST": f"unix://{folder}/docker.sock"}
        for old in (HERE / "help").glob("*.txt"):
            old.unlink()
        waiting: list[list[str]] = [[]]
        while waiting:
            words = waiting.pop()
            done = subprocess.run(["docker", *words, "--help"], capture_output=True, text=True, check=True, timeout=30, env=environment)
            page = done.stdout.replace(folder, "HOME")
            (HERE / "help" / f"{'_'.join(words) or 'docker'}.txt").write_text(page)
            if "COMMAND\n" in page.splitlines(keepends=True)[0]:
                lists = page.partition("Commands:")[2].partition("Options:")[0]
                names = re.findall(r"^  ([a-z-]+)\*? +\S", lists, re.MULTILINE)
                waiting += [[*words, name] for name in names if name not in NOT_HERE]


if __name__ == "__main__":
    main()
