"""What is wrong with a registry's certificate, in docker's words, and the way out."""

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest

from sampan import registryhosts
from sampan.distribution.transport import Transport, Unreachable
from sampan.proxies import Proxies
from tests.support.certificates import Authority
from tests.support.faultyregistry import FaultyRegistry


def reason(url: str) -> str:
    """Why it cannot be reached."""

    async def asked() -> None:
        async with Transport("test", Proxies()) as transport, transport.request("GET", url):
            pass

    with pytest.raises(Unreachable) as caught:
        asyncio.run(asked())
    return caught.value.message


def test_an_authority_nobody_knows_and_a_name_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registryhosts, "CERTS_DIRS", (tmp_path / "certs.d",))
    authority = Authority(tmp_path / "ca")
    registry = FaultyRegistry(authority.server("other.example"))
    try:
        url = f"https://{registry.host}/v2/"
        failed = f'Get "{url}": tls: failed to verify certificate: x509: '
        way = f" (the way out: its CA's certificate as {tmp_path}/certs.d/{registry.host}/ca.crt)"
        assert reason(url) == f"{failed}certificate signed by unknown authority{way}"
        directory = tmp_path / "certs.d" / registry.host
        directory.mkdir(parents=True)
        shutil.copy(authority.certificate, directory / "ca.crt")
        assert reason(url) == f"{failed}certificate is valid for other names, not 127.0.0.1"
    finally:
        registry.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "x509: certificate has expired or is not yet valid"),
        (10, "x509: certificate has expired or is not yet valid"),
        (18, "x509: certificate signed by unknown authority"),
        (24, "invalid CA certificate"),
    ],
)
def test_words_of_other_codes(code: int, words: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "invalid CA certificate"
    assert registryhosts.certificate_problem(error, "registry.example:5000").startswith(words)
