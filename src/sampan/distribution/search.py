"""docker search: the index of before 2016, which Docker Hub still answers (docker/hub-tool, moby registry/search_session.go)."""

from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec

from sampan.distribution.auth import basic
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.transport import Transport, Unreachable
from sampan.errors import InvalidArgument, SystemFailure
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.docker_api.image import SearchResult
from sampan.spec.oci_documents import decode

RESULTS_BYTES_MAX = 4 << 20
HUB_INDEX = Endpoint("https://index.docker.io")


class _Found(msgspec.Struct):
    results: list[SearchResult] | None = None


async def search(
    transport: Transport, endpoints: Sequence[Endpoint], term: str, limit: int, credentials: AuthConfig
) -> Sequence[SearchResult]:
    """What the first endpoint that answers finds. Raises InvalidArgument: none is there; SystemFailure in docker's words."""
    endpoint = endpoints[0] if endpoints == [HUB_INDEX] else await _answering(transport, endpoints)
    url = f"{endpoint.url}/v1/search?{urlencode({'q': term, 'n': limit})}"
    headers = {"Authorization": basic(credentials)} if credentials.username and not credentials.identitytoken else {}
    headers["X-Docker-Token"] = "true"
    async with transport.request("GET", url, headers=headers, home=endpoint.url, insecure=endpoint.insecure) as answer:
        if answer.status != 200:
            raise SystemFailure(f"Unexpected status code {answer.status}")
        body = await answer.read(RESULTS_BYTES_MAX)
    try:
        return decode(body, _Found, "error decoding registry search results").results or []
    except InvalidArgument as error:
        raise SystemFailure(error.message) from error


async def _answering(transport: Transport, endpoints: Sequence[Endpoint]) -> Endpoint:
    """The first at which anything answers (moby registry/endpoint_v1.go)."""
    reasons = []
    for endpoint in endpoints:
        try:
            async with transport.request("GET", f"{endpoint.url}/v1/_ping", home=endpoint.url, insecure=endpoint.insecure):
                return endpoint
        except Unreachable as error:
            reasons.append(str(error))
    host = endpoints[0].url.partition("://")[2]
    if len(endpoints) > 1:
        raise InvalidArgument(
            f'invalid registry endpoint "{endpoints[-1].url}/v1/". HTTPS attempt: {reasons[0]}. HTTP attempt: {reasons[-1]}'
        )
    raise InvalidArgument(
        f"invalid registry endpoint https://{host}/v1/: {reasons[0]}. If this private registry supports only HTTP or HTTPS with an unknown "
        f'CA certificate, please add "--insecure-registry {host}" to the daemon\'s arguments. In the case of HTTPS, if you have access to '
        f"the registry's CA certificate, no need for the flag; simply place the CA certificate at /etc/docker/certs.d/{host}/ca.crt"
    )
