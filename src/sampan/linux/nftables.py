"""libnftables: runs nft's text commands, each call in one transaction, without starting a process."""

import ctypes
import threading


class NftablesError(Exception):
    """libnftables is missing, or refused a command; the text is its own."""


class Nftables:
    """One libnftables context; safe to use from several threads."""

    def __init__(self) -> None:
        """Raises NftablesError."""
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise NftablesError(f"libnftables.so.1 cannot be loaded (Debian package libnftables1): {error}") from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._lock = threading.Lock()
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise NftablesError("libnftables gave no context")
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def run(self, commands: str) -> None:
        """Run commands, all or none. Raises NftablesError with nft's message."""
        with self._lock:
            if self._library.nft_run_cmd_from_buffer(self._context, commands.encode()):
                words = self._library.nft_ctx_get_error_buffer(self._context) or b""
                raise NftablesError(words.decode(errors="replace").strip() or "nft failed")
