"""Our certificate, and its renewal without a restart."""

import logging
import os
import ssl

from sampan.errors import SystemFailure
from sampan.registry.config import TlsConfig

log = logging.getLogger("sampan.registry")


class ServerTls:
    """One context for all listeners, which hands each connection to the newest one: those that are open keep the old one."""

    def __init__(self, config: TlsConfig) -> None:
        """Raises SystemFailure: the files cannot be used."""
        self._config = config
        self._newest = self.context = self._fresh()
        # Of a new connection, asked whether or not it names a server.
        self.context.sni_callback = lambda connection, _name, _context: setattr(connection, "context", self._newest)
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
                context.options |= ssl.OP_NO_TICKET  # a session that goes on would not be asked for its certificate again
                context.num_tickets = 0
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(self._files)
            raise SystemFailure(f"tls: {files}: {getattr(error, 'reason', None) or error}") from None
        return context

    @property
    def _files(self) -> list[str]:
        return [self._config.certificate, self._config.key, *([self._config.client_ca] if self._config.client_ca else [])]

    def _look(self) -> list[tuple[int, int, int]]:
        found = []
        for path in self._files:
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
            self._newest = self._fresh()
        except SystemFailure as error:
            log.error("the certificate stays the old one: %s", error.message)
            return False
        log.info("the certificate has been read again")
        return True
