"""Our certificate, and its renewal without a restart."""

import logging
import os
import ssl

from sampan.errors import SystemFailure
from sampan.registry.config import TlsConfig

log = logging.getLogger("sampan.registry")


class ServerTls:
    """One context for all listeners, whose certificate is replaced in place: connections that are open keep the old one."""

    def __init__(self, config: TlsConfig) -> None:
        """Raises SystemFailure: the files cannot be used."""
        self._config = config
        self.context = self._fresh()
        self._stamps = self._look()

    def _fresh(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._config.certificate, self._config.key)
            if self._config.client_ca:
                context.load_verify_locations(self._config.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            files = f"{self._config.certificate}, {self._config.key}"
            raise SystemFailure(f"tls: {files}: {getattr(error, 'reason', None) or error}") from None
        return context

    def _look(self) -> list[tuple[int, int, int]]:
        found = []
        for path in (self._config.certificate, self._config.key):
            try:
                state = os.stat(path)
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((state.st_mtime_ns, state.st_size, state.st_ino))
        return found

    def refresh(self) -> bool:
        """Take over changed files; whether it did. Files that do not fit each other (yet) leave things as they were."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self._fresh()
            self.context.load_cert_chain(self._config.certificate, self._config.key)
        except (SystemFailure, OSError, ssl.SSLError) as error:
            log.error("the certificate stays the old one: %s", getattr(error, "message", error))
            return False
        log.info("the certificate has been read again")
        return True
