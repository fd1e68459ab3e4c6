"""The images that builds stand on: those that are here, and those that have to be pulled."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from sampan.engine.buildoptions import BuildOptions
from sampan.engine.images import ImageService
from sampan.engine.progress import Progress
from sampan.engine.pull import PullService
from sampan.errors import EngineError, InvalidArgument, NotFound
from sampan.image import platforms
from sampan.image.store import Image
from sampan.reference import DEFAULT_DOMAIN, Reference, parse
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_layout import Platform

HUB_KEY = "https://index.docker.io/v1/"


class Bases:
    """Finds and pulls them."""

    def __init__(self, images: ImageService, pulls: PullService) -> None:
        self._images = images
        self._pulls = pulls

    @staticmethod
    def platform_of(text: str) -> Platform | None:
        """`os[/arch[/variant]]`; None for an empty text. Raises InvalidArgument."""
        if not text:
            return None
        found = platforms.wanted(text)
        if found.os != "linux":
            raise InvalidArgument(f"operating system is not supported: {found.os}")
        return found

    def known(self, names: Sequence[str]) -> list[Image]:
        """Those that are here, of `--cache-from`."""
        found: list[Image] = []
        for name in names:
            with suppress(EngineError):
                found.append(self._images.resolve(name))
        return found

    async def get(self, name: str, platform: Platform | None, options: BuildOptions, put: Callable[[Progress], None]) -> Image:
        """An image by name, pulled if it is not here, or of another platform, or `--pull` is given. Raises EngineErrors."""
        if not name:
            raise InvalidArgument("base name should not be blank")
        reference = parse(name).with_default_tag()
        if not options.pull:
            with suppress(NotFound):
                image = self._images.resolve(name)
                if not platforms.mismatch(name, image, platform):
                    return image
        text = "" if platform is None else platforms.shown(platform)
        async for line in self._pulls.pull(reference, platform=text, credentials=_credentials(reference, options)):
            put(line)
        return self._images.resolve(name)


def _credentials(reference: Reference, options: BuildOptions) -> AuthConfig:
    key = HUB_KEY if reference.domain == DEFAULT_DOMAIN else reference.domain
    return options.credentials.get(key) or options.credentials.get(reference.domain) or AuthConfig()
