"""sampan version."""

from __future__ import annotations

import sys

from sampan.cli.connect import current_context
from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.format.gotime import ansic
from sampan.cli.http import CLIENT_API_VERSION, CliError
from sampan.cli.inspecting import FORMAT_HELP
from sampan.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command("[OPTIONS]", "Show the version information", max_args=0, flags=(Flag("format", "f", "string", "", FORMAT_HELP),))
_DETAILS = (
    ("ApiVersion", "ApiVersion"),
    ("MinAPIVersion", "MinAPIVersion"),
    ("GitCommit", "GitCommit"),
    ("GoVersion", "GoVersion"),
    ("Os", "Os"),
    ("Arch", "Arch"),
    ("BuildTime", "BuildTime"),
)


def client_version(api_version: str, context: str) -> dict[str, Any]:
    """What the client says of itself, by docker's names; GoVersion is the interpreter here."""
    import os

    machine = os.uname().machine
    return {
        "Platform": {"Name": "Sampan"},
        "Version": VERSION,
        "ApiVersion": api_version,
        "DefaultAPIVersion": CLIENT_API_VERSION,
        "GoVersion": f"python{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
        "GitCommit": "",
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "BuildTime": "",
        "Context": context,
    }


def run(ctx: Context, args: Parsed) -> int:
    """Print the versions of client and daemon; a daemon that does not answer is an error after the client's."""
    layout = args.str("format")
    template = None
    if layout:
        from sampan.cli.format.formatter import parse
        from sampan.cli.format.functions import Function
        from sampan.cli.format.values import GoList

        order = Function(lambda component: GoList("[]string", sorted(component.fields["Details"])), "types.ComponentVersion")
        template = parse("{{json .}}" if layout == "json" else layout, "version", {"getDetailsOrder": order})
    server: dict[str, Any] | None = None
    failed: CliError | None = None
    try:
        server = _server(ctx.client.request("GET", "/version").json())
    except CliError as error:
        failed = error
    client = client_version(ctx.client.api_version or CLIENT_API_VERSION, current_context(ctx.options))
    if template is None:
        from sampan.cli.format.table import tabulate

        sys.stdout.write(tabulate("\n".join(_lines(client, server)), minimum=20, padding=1) + "\n")
    else:
        failed = _formatted(template, client, server) or failed if failed is None else (_formatted(template, client, server), failed)[1]
    if failed:
        raise failed
    return 0


def _formatted(template: Any, client: dict[str, Any], server: dict[str, Any] | None) -> CliError | None:
    from sampan.cli.format import schema
    from sampan.cli.format.lex import TemplateError
    from sampan.cli.format.table import tabulate

    failed = None
    try:
        out = template.execute(schema.decode("system.versionInfo", {"Client": client, "Server": server}))
    except TemplateError as error:
        out, failed = getattr(error, "partial", ""), CliError(str(error))
    sys.stdout.write(tabulate(out + "\n", minimum=20, padding=1))
    return failed


def _server(raw: dict[str, Any]) -> dict[str, Any]:
    """The daemon's answer with an Engine component, which old daemons do not list, and readable build times."""
    components = list(raw.get("Components") or [])
    for component in components:
        if component.get("Name") == "Engine" and "BuildTime" in (component.get("Details") or {}):
            component["Details"]["BuildTime"] = ansic(component["Details"]["BuildTime"])
    if not any(component.get("Name") == "Engine" for component in components):
        details = {name: str(raw.get(key) or "") for name, key in _DETAILS}
        details["BuildTime"] = ansic(details["BuildTime"])
        details["Experimental"] = "true" if raw.get("Experimental") else "false"
        components.append({"Name": "Engine", "Version": raw.get("Version") or "", "Details": details})
    return {**raw, "Components": components}


def _lines(client: dict[str, Any], server: dict[str, Any] | None) -> list[str]:
    api = client["ApiVersion"]
    lowered = f" (downgraded from {client['DefaultAPIVersion']})" if api != client["DefaultAPIVersion"] else ""
    lines = [
        f"Client: {client['Platform']['Name']}",
        f" Version:\t{client['Version']}",
        f" API version:\t{api}{lowered}",
        f" Go version:\t{client['GoVersion']}",
        f" Git commit:\t{client['GitCommit']}",
        f" Built:\t{client['BuildTime']}",
        f" OS/Arch:\t{client['Os']}/{client['Arch']}",
        f" Context:\t{client['Context']}",
    ]
    lines = [line for line in lines if not line.endswith("\t")]
    if server is None:
        return lines
    name = (server.get("Platform") or {}).get("Name") or ""
    lines += ["", f"Server:{' ' if name else ''}{name}"]
    for component in server["Components"]:
        details = component.get("Details") or {}
        lines.append(f" {component.get('Name', '')}:")
        lines.append(f"  Version:\t{component.get('Version', '')}")
        if component.get("Name") != "Engine":
            lines += [f"  {key}:\t{details[key]}" for key in sorted(details)]
            continue
        get = details.get
        lines += [
            f"  API version:\t{get('ApiVersion', '')} (minimum version {get('MinAPIVersion', '')})",
            f"  Go version:\t{get('GoVersion', '')}",
            f"  Git commit:\t{get('GitCommit', '')}",
            f"  Built:\t{get('BuildTime', '')}",
            f"  OS/Arch:\t{get('Os', '')}/{get('Arch', '')}",
            f"  Experimental:\t{get('Experimental', '')}",
        ]
    return lines
