"""Certificates for tests, by openssl(1): an authority of one's own, and what it signs."""

import ssl
import subprocess
from pathlib import Path


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        subject = ["-subj", "/CN=Sampan's test authority", "-days", "2"]
        self._openssl("req", "-x509", *self._new_key(self._key), *subject, "-out", str(self.certificate))

    @staticmethod
    def _openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=60)

    @staticmethod
    def _new_key(path: Path) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path)]

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """(certificate, key) of a server or client, for addresses and names."""
        request, certificate, key = (self.directory / f"{name}.{end}" for end in ("csr", "pem", "key"))
        extensions = self.directory / f"{name}.ext"
        kinds = [f"{'IP' if host[0].isdecimal() else 'DNS'}:{host}" for host in hosts]
        extensions.write_text(f"subjectAltName={','.join(kinds)}\n")
        self._openssl("req", "-new", *self._new_key(key), "-subj", f"/CN={name}", "-out", str(request))
        self._openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial",
            "-days", "2", "-extfile", str(extensions), "-out", str(certificate),
        )  # fmt: skip
        return certificate, key

    def server(self, *hosts: str, clients: bool = False) -> ssl.SSLContext:
        """For a server with these addresses and names; clients: they must have a certificate of ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("server", *hosts))
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.certificate)
        return context
