"""Attached streams as `docker run`, `exec` and `attach` handle them: demultiplexing, raw terminals, detach keys, window sizes, signals."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any

    from sampan.cli.http import Client, Connection, Hijacked
    from sampan.cli.main import Context
else:
    import _signal as signal  # the signal module proper builds three enums, for which nobody here has a use

from sampan.cli.http import CliError  # noqa: E402

_READ = 1 << 18
_IOV_MAX = 1024
_DETACHED = 255
_STDIN_DONE = 254
DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q

# Signals that `docker run` passes on, by the names its API takes. Not: KILL and STOP (cannot be caught), CHLD, PIPE and URG (docker drops
# them), the synchronous ones (a fault of this process), TTIN and TTOU (job control of this process).
SIGNAL_NAMES: dict[int, str] = {
    1: "HUP",
    2: "INT",
    3: "QUIT",
    10: "USR1",
    12: "USR2",
    14: "ALRM",
    15: "TERM",
    16: "STKFLT",
    18: "CONT",
    20: "TSTP",
    24: "XCPU",
    25: "XFSZ",
    26: "VTALRM",
    27: "PROF",
    28: "WINCH",
    29: "IO",
    30: "PWR",
    34: "RTMIN",
    64: "RTMAX",
    **{34 + n: f"RTMIN+{n}" for n in range(1, 16)},
    **{64 - n: f"RTMAX-{n}" for n in range(1, 15)},
}


def write_all(fd: int, pieces: list[memoryview] | list[bytes]) -> None:
    """Write everything to a descriptor, also if somebody made it non-blocking."""
    left: list[Any] = list(pieces)
    while left:
        try:
            done = os.writev(fd, left[:_IOV_MAX])
        except BlockingIOError:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()
            continue
        while left and done >= len(left[0]):
            done -= len(left[0])
            del left[0]
        if done and left:
            left[0] = memoryview(left[0])[done:]


class Demux:
    """Splits docker's multiplexed stream (8-byte headers: type, 0, 0, 0, length) onto stdout and stderr. None drops that stream."""

    def __init__(self, out: int | None = 1, err: int | None = 2) -> None:
        self._fds: tuple[int | None, ...] = (out, out, err)
        self._head = b""
        self._left = 0
        self._kind = 1
        self._error = b""

    def feed(self, data: bytes) -> None:
        """Take what came off the wire; raises CliError for a type no daemon sends, and for an error the daemon puts into the stream."""
        view = memoryview(data)
        at, end = 0, len(data)
        pieces: list[memoryview] = []
        fd: int | None = None
        while at < end:
            if not self._left:
                need = 8 - len(self._head)
                self._head += bytes(view[at : at + need])
                at += need
                if len(self._head) < 8:
                    break
                self._kind = self._head[0]
                self._left = int.from_bytes(self._head[4:8], "big")
                self._head = b""
                if self._kind > 3:
                    raise CliError(f"Unrecognized input header: {self._kind}")
                continue
            piece = view[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._kind == 3:
                self._error += bytes(piece)
                if not self._left:
                    raise CliError(f"error from daemon in stream: {self._error.decode('utf-8', 'replace')}")
                continue
            target = self._fds[self._kind]
            if target != fd:
                if pieces and fd is not None:
                    write_all(fd, pieces)
                pieces = []
                fd = target
            pieces.append(piece)
        if pieces and fd is not None:
            write_all(fd, pieces)


def parse_detach_keys(keys: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,DEL` as the bytes a terminal sends. Raises ValueError in docker's words."""
    codes = bytearray()
    for key in keys.split(","):
        if len(key) == 1:
            codes += key.encode()[:1]
        elif key == "DEL":
            codes.append(127)
        elif len(key) == 6 and key.startswith("ctrl-") and (key[5].islower() or key[5] in "@[\\]^_"):
            codes.append(ord(key[5].upper()) & 0x1F)
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return bytes(codes)


class EscapeFilter:
    """Looks for the detach keys in what is typed; a started sequence is held back until it is clear that it is none."""

    def __init__(self, keys: bytes) -> None:
        self.keys = keys
        self.seen = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What may go to the container, and whether the sequence is complete (the rest is dropped)."""
        keys = self.keys
        if not keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == keys[self.seen]:
                self.seen += 1
                if self.seen == len(keys):
                    self.seen = 0
                    return bytes(out), True
                continue
            if self.seen:
                out += keys[: self.seen]
                self.seen = 0
                if byte == keys[0]:
                    self.seen = 1
                    continue
            out.append(byte)
        return bytes(out), False


def terminal_size(fd: int = 1) -> tuple[int, int]:
    """(height, width) of the terminal on a descriptor; (0, 0) if it is none."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return size.lines, size.columns


class Session:
    """One attached stream from begin() to run()'s return.

    stdin is read by a thread of its own, so that neither direction ever waits for the other. Signals and that thread report through one
    pipe, which run() polls together with the connection.
    """

    def __init__(
        self,
        client: Client,
        stream: Hijacked,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
        detach_keys: str = "",
        signals_to: str = "",
        resize: str = "",
        until: Connection | None = None,
    ) -> None:
        """signals_to: container ID that signals are passed to ("": they end this program); resize: path of the resize endpoint, if there is
        a terminal to be followed; until: a second connection that ends run() when it becomes readable and no output is attached."""
        self.client = client
        self.stream = stream
        self.stdin = stdin
        self.output = stdout or stderr
        self.tty = tty
        self.signals_to = signals_to
        self.resize_path = resize
        self.until = until
        self.detached = False
        self.demux = Demux(1 if stdout else None, 2 if stderr else None)
        self._keys = _detach_bytes(detach_keys)
        self._saved: Any = None
        self._report, self._reporter = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._watch_size = False
        self._resize_tries = 0

    def begin(self) -> None:
        """Raw terminal, signal handlers, and stdin starts to flow."""
        if self.stdin and self.tty:
            self._raw()
        signal.set_wakeup_fd(self._reporter, warn_on_full_buffer=False)
        for number in SIGNAL_NAMES if self.signals_to else (1, 2, 3, 15):
            try:
                signal.signal(number, _nothing)
            except (OSError, ValueError):
                pass  # the kernel or the C library keeps this one
        if self.stdin:
            import _thread

            _thread.start_new_thread(self._pump_stdin, ())

    def watch_size(self, *, redraw: bool = False) -> None:
        """Send the terminal's size now and whenever it changes (once the process is started).

        redraw: send a size off by one first, so that a program already running notices and draws itself again.
        """
        if not self.resize_path:
            return
        if redraw:
            height, width = terminal_size()
            try:
                self.client.request("POST", self.resize_path, {"h": height + 1, "w": width + 1}).read()
            except CliError:
                pass
        self._watch_size = True
        signal.signal(signal.SIGWINCH, _nothing)
        self._resize()

    def run(self) -> None:
        """Copy until the output ends; with nothing attached for output, until `until`. Sets `detached` if the detach keys were typed."""
        poller = select.poll()
        poller.register(self._report, select.POLLIN)
        if self.output:
            poller.register(self.stream.sock.fileno(), select.POLLIN)
        if self.until is not None:
            poller.register(self.until.sock.fileno(), select.POLLIN)
        sock = self.stream.sock.fileno()
        try:
            if self.stream.early and self.output:
                self._show(self.stream.early)
            while not self.detached:
                for fd, _ in poller.poll(self._retry_delay()):
                    if fd == sock:
                        if not self._receive():
                            return
                    elif fd == self._report:
                        if self._reports() and not self.output and self.until is None:
                            return
                    else:
                        if not self.output:
                            return
                        poller.unregister(fd)
                if self._resize_tries:
                    self._resize()
        finally:
            self.end()

    def end(self) -> None:
        """Give the terminal back."""
        if self._saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
            self._saved = None

    def _receive(self) -> bool:
        try:
            data = self.stream.sock.recv(_READ)
        except ConnectionResetError:
            return False
        if data:
            self._show(data)
        return bool(data)

    def _show(self, data: bytes) -> None:
        if self.tty:
            write_all(1, [data])
        else:
            self.demux.feed(data)

    def _reports(self) -> bool:
        """Handle what the pipe tells. True when stdin has ended."""
        ended = False
        for number in os.read(self._report, 4096):
            if number == _DETACHED:
                self.detached = True
            elif number == _STDIN_DONE:
                ended = True
            elif number == signal.SIGWINCH and self._watch_size:
                self._resize_tries = 0
                self._resize()
            elif self.signals_to:
                self._forward(number)
            elif number in (1, 2, 3, 15):
                self.end()
                raise CliError("", 128 + number)
        return ended

    def _forward(self, number: int) -> None:
        name = SIGNAL_NAMES.get(number)
        if name:
            try:
                self.client.request("POST", f"/containers/{self.signals_to}/kill", {"signal": name}).read()
            except CliError:
                pass  # it may have ended: docker says nothing either

    def _resize(self) -> None:
        height, width = terminal_size(1 if os.isatty(1) else 0)
        if not (height or width):
            return
        try:
            self.client.request("POST", self.resize_path, {"h": height, "w": width}).read()
            self._resize_tries = 0
        except CliError:
            self._resize_tries += 1  # the process may not be quite there yet
            if self._resize_tries > 10:
                self._resize_tries = 0
                os.write(2, b"failed to resize tty, using default size\r\n")

    def _retry_delay(self) -> int | None:
        return self._resize_tries * 10 if self._resize_tries else None

    def _raw(self) -> None:
        if not os.isatty(0):
            return
        import termios

        self._saved = termios.tcgetattr(0)
        mode = termios.tcgetattr(0)
        mode[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
        mode[0] &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSADRAIN, mode)

    def _pump_stdin(self) -> None:
        keys = EscapeFilter(self._keys if self.tty else b"")
        sock = self.stream.sock
        try:
            while data := _read_stdin():
                data, detached = keys.feed(data)
                if data:
                    sock.sendall(data)
                if detached:
                    os.write(self._reporter, bytes([_DETACHED]))
                    return
        except OSError:
            pass  # the other side is gone: the reading end notices and says what happened
        self.stream.close_write()
        os.write(self._reporter, bytes([_STDIN_DONE]))


def _read_stdin() -> bytes:
    """What is there on stdin, waiting for it also if somebody made the descriptor non-blocking."""
    while True:
        try:
            return os.read(0, _READ)
        except BlockingIOError:
            poller = select.poll()
            poller.register(0, select.POLLIN)
            poller.poll()


def _nothing(number: int, frame: object) -> None:
    """A handler that only keeps the default action away: the number arrives by the wake-up pipe."""


def _detach_bytes(keys: str) -> bytes:
    if not keys:
        return DEFAULT_DETACH_KEYS
    try:
        return parse_detach_keys(keys)
    except ValueError as error:
        os.write(2, f"WARNING: invalid detach escape keys, using default: {error}\n".encode())
        return DEFAULT_DETACH_KEYS


def detach_keys(ctx: Context, given: str) -> str:
    """The detach keys to use: the option's, else the configuration's, else "" (the default)."""
    configured = ctx.config.get("detachKeys")
    return given or (configured if isinstance(configured, str) else "")


def check_tty(stdin: bool, tty: bool) -> None:
    """Refuse `-it` without a terminal, in docker's words."""
    if stdin and tty and not os.isatty(0):
        raise CliError("the input device is not a TTY")


class ExitWaiter:
    """A POST /wait whose head has arrived: the daemon has registered it."""

    def __init__(self, ctx: Context, container: str, condition: str) -> None:
        self.ctx = ctx
        self.response = ctx.client.request("POST", f"/containers/{container}/wait", {"condition": condition})
        self.connection = self.response.connection

    def __call__(self) -> int:
        """The exit code; 125 if the wait itself failed, with a message as docker logs it."""
        try:
            answer = self.response.json()
        except (CliError, ValueError, OSError) as error:
            self.ctx.error(f'level=error msg="error waiting for container: {error}"')
            return 125
        if answer.get("Error"):
            self.ctx.error(f'level=error msg="Error waiting for container: {answer["Error"].get("Message", "")}"')
            return 125
        code: int = answer["StatusCode"]
        return code
