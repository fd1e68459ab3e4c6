"""From a request to its answer: routes, access, errors. No HTTP library in here."""

import logging

from sampan.registry import routes
from sampan.registry.errors import RegistryError
from sampan.registry.http import Answer, Request
from sampan.registry.parts import Parts

log = logging.getLogger("sampan.registry")
COMMON = {"Docker-Distribution-Api-Version": "registry/2.0", "X-Content-Type-Options": "nosniff"}


class App:
    """One registry's API."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def answer(self, request: Request) -> Answer:
        """Never raises but for a client that is gone (ConnectionError)."""
        try:
            answer = await self._answer(request)
        except RegistryError as error:
            answer = Answer.json(error.document(), error.status, error.headers)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            failure = RegistryError("UNKNOWN")
            answer = Answer.json(failure.document(), failure.status)
        for name, value in COMMON.items():
            answer.headers.setdefault(name, value)
        return answer

    async def _answer(self, request: Request) -> Answer:
        found = routes.find(request.method, request.path)
        if found is None:
            return Answer(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})
        request.variables = found.variables
        return await found.operation.handler(self._parts, request)
