"""X-Registry-Auth, whatever a client sends."""

import base64

import pytest

from sampan.api import decode
from sampan.spec.docker_api.auth import AuthConfig


@pytest.mark.parametrize(
    "body", [b"", b"nothing", b'{"username":"\xff"}', b'{"username":"\\udcff"}', b'{"x":' + b"[" * 40_000, b'{"username":1}']
)
def test_what_cannot_be_read_is_nobody(body: bytes) -> None:
    assert decode.registry_auth(base64.urlsafe_b64encode(body).decode()) == AuthConfig()


def test_either_alphabet_padded_or_not() -> None:
    for encoded in (base64.b64encode, base64.urlsafe_b64encode):
        text = encoded(b'{"username":"\xc3\xbf\xc3\xbf?>"}').decode()
        assert decode.registry_auth(text) == decode.registry_auth(text.rstrip("=")) == AuthConfig(username="ÿÿ?>")
