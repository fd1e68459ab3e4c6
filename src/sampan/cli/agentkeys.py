"""An ssh agent of our own, for `sampan build --ssh id=KEY`: OpenSSH's, with the keys of files."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time

from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_START_SECONDS = 10.0
_KEY_MAX = 100 << 10


class KeyAgent:
    """It ends with close(), and soon after us however we end: it lasts as long as a `cat` of ours, whose input ends with us."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises CliError."""
        self._directory = tempfile.TemporaryDirectory(prefix="sampan-agent")
        self.path = f"{self._directory.name}/agent"
        try:
            self._cat = subprocess.Popen(["ssh-agent", "-a", self.path, "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        except OSError as error:
            self._directory.cleanup()
            raise CliError(f"keys in files need OpenSSH's ssh-agent: {(error.strerror or '').lower()}") from None
        try:
            self._wait()
            for key in keys:
                self._add(key)
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not os.path.exists(self.path):
            if self._cat.poll() is not None or time.monotonic() > deadline:
                raise CliError("keys in files need OpenSSH's ssh-agent, which does not start")
            time.sleep(0.005)

    def _add(self, key: str) -> None:
        environment = {**os.environ, "SSH_AUTH_SOCK": self.path, "SSH_ASKPASS_REQUIRE": "never"}
        try:
            with open(key, "rb") as file:
                data = file.read(_KEY_MAX)
        except OSError as error:
            raise CliError(f"failed to open {key}: open {key}: {(error.strerror or '').lower()}") from None
        try:
            # as its input, for ssh-add refuses files that others may read; in a session of its own, for it asks a terminal for passphrases
            done = subprocess.run(
                ["ssh-add", "-q", "-"], env=environment, input=data, capture_output=True, start_new_session=True, check=False
            )
        except OSError as error:
            raise CliError(f"keys in files need OpenSSH's ssh-add: {(error.strerror or '').lower()}") from None
        if done.returncode:
            locked = b"passphrase" in done.stderr.lower()
            raise CliError(f"failed to parse {key}: ssh: {'this private key is passphrase protected' if locked else 'no key found'}")

    def close(self) -> None:
        """May be called twice."""
        assert self._cat.stdin is not None
        self._cat.stdin.close()
        self._cat.wait()
        self._directory.cleanup()
