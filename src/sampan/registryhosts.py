"""How a registry's host is spoken to: whether without TLS, and with which certificates. For the engine, and for `sampan mirror test`."""

import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sampan.errors import SystemFailure

HUB = "registry-1.docker.io"
CERTS_DIRS = (Path("/etc/sampan/certs.d"), Path("/etc/docker/certs.d"))
"""HOST[:PORT]/{*.crt, NAME.cert + NAME.key}, as docker has them (docs/reference/commandline/dockerd, certificates)."""


def without_scheme(listed: str) -> str:
    """An insecure registry as daemon.json names it, without the http:// that dockerd lets pass (moby registry/config.go)."""
    scheme, separator, rest = listed.partition("://")
    return rest if separator and scheme.lower() in ("http", "https") else listed


def is_insecure(host: str, insecure_registries: Sequence[str]) -> bool:
    """Whether a registry (HOST[:PORT]) may be spoken to without TLS: loopback, or listed by name or by network (CIDR)."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.strip("[]")
    listed = [without_scheme(item) for item in insecure_registries]
    if host in listed or name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    for item in listed:
        try:
            if "/" in item and address in ipaddress.ip_network(item, strict=False):
                return True
        except ValueError:
            continue
    return False


def certificates_of(host: str) -> list[Path]:
    """The directories there are for a host; a registry may name any."""
    return [parent / host for parent in CERTS_DIRS if host.strip(".") and (parent / host).is_dir()]


def certificate_problem(error: Exception, host: str) -> str:
    """Why the certificate of a host (HOST[:PORT]) is not taken, in the words of Go's crypto/x509, and what can be done."""
    match getattr(error, "verify_code", 0):
        case 9 | 10:
            return "x509: certificate has expired or is not yet valid"
        case 18 | 19 | 20 | 21:  # self-signed, by itself or above; its issuer is not there
            way = f"the way out: its CA's certificate as {CERTS_DIRS[0] / host / 'ca.crt'}"
            return f"x509: certificate signed by unknown authority ({way})"
        case 62 | 64:  # for which ones, OpenSSL does not tell
            return f"x509: certificate is valid for other names, not {urlsplit('//' + host).hostname}"
    return getattr(error, "verify_message", "") or str(error)


def tls_context(host: str, *, insecure: bool, client: bool) -> ssl.SSLContext:
    """What is trusted of a host, and the client certificates for it. Raises SystemFailure for files that are no certificates.

    client: whether it may see them: only a registry that a user has named, and nobody that a registry leads us to.
    """
    if insecure:  # without the system's CAs, which take some 50 ms to read
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context()
    for directory in certificates_of(host):
        for file in sorted(directory.iterdir()):
            if file.suffix in (".cert", ".key") and not client:
                continue
            key = file.with_suffix(".key")
            if file.suffix == ".cert" and not key.exists():
                raise SystemFailure(
                    f"missing key {key.name} for client certificate {file.name}. CA certificates must use the extension .crt"
                )
            if file.suffix == ".key" and not file.with_suffix(".cert").exists():
                raise SystemFailure(f"missing client certificate {file.with_suffix('.cert').name} for key {file.name}")
            try:
                if file.suffix == ".crt":
                    context.load_verify_locations(file)
                elif file.suffix == ".cert":
                    context.load_cert_chain(file, key)
            except (ssl.SSLError, OSError) as error:
                raise SystemFailure(f"{file}: {getattr(error, 'reason', None) or error}") from error
    return context
