"""Clients that are at work on an engine while it is killed under them."""

import http.client
import random
import threading
import time
from typing import Any

from tests.support.engine import Engine

FAILS = (OSError, http.client.HTTPException, ValueError)
"""What a connection does that a kill broke."""


class Clients:
    """Threads that do one thing after the other until told to stop; a broken connection is no news to them."""

    timeout = 60.0
    """Seconds for one request."""

    def __init__(self, engine: Engine, seed: int, threads: int) -> None:
        """Starts them at once: what one_thing() needs is there before."""
        self.engine, self.stopping = engine, threading.Event()
        self.wrong: list[str] = []
        """What must not have been answered."""
        self.threads = [threading.Thread(target=self._work, args=(random.Random(seed * 100 + number),)) for number in range(threads)]
        for thread in self.threads:
            thread.start()

    def one_thing(self, chance: random.Random) -> None:
        """What a client does, again and again. Raises what a broken connection raises."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all clients."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request; a 5xx is wrong."""
        status, answer = self.engine.request(method, path, body, timeout=self.timeout)
        if status >= 500:
            self.wrong.append(f"{method} {path}: {status} {answer}")
        return status, answer

    def _work(self, chance: random.Random) -> None:
        while not self.stopping.is_set():
            try:
                self.one_thing(chance)
            except FAILS:
                time.sleep(0.01)
