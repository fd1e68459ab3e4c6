"""Small parts that several tags' routes share."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sampan.api.http import Request, Response
from sampan.api.services import Services
from sampan.errors import NotImplementedYet

T = TypeVar("T")

Handler = Callable[[Request, Services], Response | Awaitable[Response | None] | None]


def missing(feature: str) -> Handler:
    """A handler for what docker has and Sampan does not, yet: 501 with the feature's name."""

    def refuse(request: Request, services: Services) -> Response:
        del request, services
        raise NotImplementedYet(f"{feature} is not implemented in Sampan yet")

    return refuse


def fixed(response: Response) -> Handler:
    """A handler that always answers the same."""

    def answer(request: Request, services: Services) -> Response:
        del request, services
        return response

    return answer


@asynccontextmanager
async def ended(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close a service's iterator whatever way the answer ends: it may hold a subscription, and garbage collection comes late."""
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
