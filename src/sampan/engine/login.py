"""docker login, the daemon's part: whether a registry takes somebody's credentials (moby registry/service.go, auth.go)."""

from urllib.parse import urlsplit

from sampan.distribution.auth import WrongCredentials
from sampan.distribution.registry import log_in
from sampan.engine.registries import Registries
from sampan.errors import EngineError, InvalidArgument, SystemFailure, Unauthorized
from sampan.reference import DEFAULT_DOMAIN
from sampan.spec.docker_api.auth import AuthConfig, LoginStatus

INDEX_HOST = "index.docker.io"


class LoginService:
    """Credentials for registries. Keeps none."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries

    async def login(self, credentials: AuthConfig) -> LoginStatus:
        """Try credentials at their `serveraddress` (a host, or a URL of which only the host counts; empty: docker.io).

        Raises Unauthorized: the token server does not know them; SystemFailure: the registry refuses, or none answers.
        """
        failure: EngineError = SystemFailure("no registry to log in to")
        async with self._registries.transport() as transport:
            for endpoint in self._registries.endpoints(_domain(credentials.serveraddress)):
                try:
                    return LoginStatus(identity_token=await log_in(transport, endpoint, credentials), status="Login Succeeded")
                except WrongCredentials as error:
                    raise Unauthorized(error.message) from error
                except SystemFailure as error:
                    failure = error
        raise failure


def _domain(address: str) -> str:
    """The registry of a server address. Raises InvalidArgument."""
    if not address:
        return DEFAULT_DOMAIN
    try:
        parts = urlsplit(address if address.startswith(("http://", "https://")) else f"https://{address}")
        host = parts.netloc
        bad = not parts.hostname or parts.username is not None or parts.port == 0
    except ValueError:
        bad, host = True, ""
    if bad:
        raise InvalidArgument(f"unable to parse server address: {address!r}")
    return DEFAULT_DOMAIN if host == INDEX_HOST else host
