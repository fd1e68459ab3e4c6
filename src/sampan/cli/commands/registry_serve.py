"""sampan registry serve: Sampan's own, a registry in this process. docs/registry.md."""

from __future__ import annotations

from sampan.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Run a registry",
    max_args=0,
    flags=(
        Flag("access-log", "", "string", "", "Format of the access log on stdout (json, text, off)", shown="json"),
        Flag("anonymous-pull", "", "bool", False, "Let everybody pull; users as well may push"),
        Flag("config", "c", "string", "", "Configuration file (default /etc/sampan/registry.json, if it exists)"),
        Flag("delete", "", "bool", True, "Allow the deletion of tags, manifests and blobs"),
        Flag("drain-seconds", "", "uint64", 30, "Seconds that requests under way have when the registry is stopped"),
        Flag("htpasswd", "", "string", "", "File with the users and their bcrypt passwords"),
        Flag("listen", "l", "list", (), "Address to listen on (default 127.0.0.1:5000)"),
        Flag("log-level", "", "string", "", "Level of the log on stderr (debug, info, warning, error)", shown="info"),
        Flag("metrics-listen", "", "string", "", "Address for /metrics, /healthz and /readyz alone"),
        Flag("root", "", "string", "", "Directory of the registry's data (default /var/lib/sampan-registry)"),
        Flag("tls-certificate", "", "string", "", "Certificate chain, read again when it changes"),
        Flag("tls-client-ca", "", "string", "", "Authority whose certificates clients must have"),
        Flag("tls-key", "", "string", "", "Key of the certificate"),
        Flag("url", "", "string", "", "URL by which clients reach the registry, behind a proxy"),
    ),
)


def run(ctx: Context, args: Parsed) -> NoReturn:
    """Never returns."""
    from sampan.cli.registry import become

    del ctx
    settings = {name: args.values[name] for name in sorted(args.set) if name != "config"}
    become("serve", config=args.str("config"), settings=settings)
