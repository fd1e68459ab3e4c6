"""Credentials in the headers X-Registry-Auth and X-Registry-Config."""

import base64
import json

import pytest

from sampan.api.decode import registry_auth, registry_config
from sampan.spec.docker_api.auth import AuthConfig

USER = {"username": "ü?>", "password": "p"}


@pytest.mark.parametrize("encode", [base64.urlsafe_b64encode, base64.b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_either_alphabet_with_padding_or_without(encode, padded: bool) -> None:
    one = encode(json.dumps(USER, ensure_ascii=False).encode()).decode()
    many = encode(json.dumps({"r.example": USER, "https://index.docker.io/v1/": {}}, ensure_ascii=False).encode()).decode()
    one, many = (one, many) if padded else (one.rstrip("="), many.rstrip("="))
    assert registry_auth(one) == AuthConfig(username="ü?>", password="p")
    assert registry_config(many) == {"r.example": AuthConfig(username="ü?>", password="p"), "https://index.docker.io/v1/": AuthConfig()}


@pytest.mark.parametrize("header", ["", "e30=", "!", "ä", "bnVsbA==", "W10=", "eyJhIjoxfQ=="])
def test_what_cannot_be_read_is_nobody(header: str) -> None:
    assert registry_auth(header) == AuthConfig()
    assert registry_config(header) == {}
