"""sampan login."""

from __future__ import annotations

import sys

from sampan.cli import credentials
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import ApiError, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS] [SERVER]",
    "Authenticate to a registry",
    long="Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    max_args=1,
    complete="none",
    flags=(
        Flag("password", "p", "string", "", "Password or Personal Access Token (PAT)"),
        Flag("password-stdin", "", "bool", False, "Take the Password or Personal Access Token (PAT) from stdin"),
        Flag("username", "u", "string", "", "Username"),
    ),
)
_HINT = (
    "Log in with your Docker ID or email address to push and pull images from Docker Hub. "
    "If you don't have a Docker ID, head over to https://hub.docker.com/ to create one.\n"
    "You can log in with your password or a Personal Access Token (PAT). Using a limited-scope PAT grants better security and is "
    "required for organizations using SSO. Learn more at https://docs.docker.com/go/access-tokens/\n"
)


def run(ctx: Context, args: Parsed) -> int:
    """Try the user's credentials at a registry, by the daemon, and keep them."""
    user, password = args.str("username").strip(), args.str("password")
    if password and args.bool("password-stdin"):
        raise CliError("conflicting options: cannot specify both --password and --password-stdin")
    if password:
        ctx.error("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if args.bool("password-stdin"):
        if not user:
            raise CliError("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    given = args.args[0] if args.args else ""
    server = credentials.INDEX_SERVER if given in ("", "docker.io") else credentials.hostname(given)
    stored = credentials.load(ctx, server) if not user and not password else {}
    if stored.get("username") and stored.get("password"):
        status = _with_stored(ctx, stored)
        if status is not None:
            print(status)
            return 0
    print(_login(ctx, _asked(server, user, password, stored.get("username", ""))))
    return 0


def _with_stored(ctx: Context, stored: dict[str, str]) -> str | None:
    """Log in as before; None when that does not work any more."""
    ctx.error(f"Authenticating with existing credentials... [Username: {stored['username']}]")
    ctx.error("\n Info -> To login with a different account, run 'docker logout' followed by 'docker login'\n\n")
    try:
        return _login(ctx, stored)
    except ApiError as error:
        ctx.error("Stored credentials invalid or expired" if error.status == 401 else f"Login did not succeed, error: {error.message}")
        return None


def _login(ctx: Context, auth: dict[str, str]) -> str:
    """Raises ApiError, CliError."""
    answer = ctx.client.request("POST", "/auth", None, auth).json()
    if answer.get("IdentityToken"):
        auth = {**auth, "password": "", "identitytoken": answer["IdentityToken"]}
    credentials.store(ctx, auth)
    return str(answer.get("Status", ""))


def _asked(server: str, user: str, password: str, known: str) -> dict[str, str]:
    """The credentials, what is missing asked of the user. Raises CliError."""
    if not (user and password) and not sys.stdin.isatty():
        raise CliError("Error: Cannot perform an interactive login from a non TTY device")
    if not user:
        if server == credentials.INDEX_SERVER:
            print(_HINT)
        user = _line(f"Username ({known}): " if known else "Username: ") or known
        if not user:
            raise CliError("Error: Non-null Username Required")
    if not password.strip():
        password = _hidden("Password: ")
        if not password:
            raise CliError("Error: Password Required")
    return {"username": user, "password": password.strip(), "serveraddress": server}


def _line(prompt: str) -> str:
    sys.stdout.write(prompt)
    sys.stdout.flush()
    return sys.stdin.readline().strip()


def _hidden(prompt: str) -> str:
    """A line that the terminal does not show."""
    import termios

    before = termios.tcgetattr(0)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(0, termios.TCSADRAIN, silent)
    try:
        return _line(prompt)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        print()
