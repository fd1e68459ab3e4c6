"""sampan info."""

from __future__ import annotations

import sys

from sampan.cli.flags import Command, Flag, Parsed, quote
from sampan.cli.http import ApiError, CliError
from sampan.cli.inspecting import FORMAT_HELP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.main import Context

SPEC = Command(
    "[OPTIONS]",
    "Display system-wide information",
    max_args=0,
    aliases=("system info", "info"),
    flags=(Flag("format", "f", "string", "", FORMAT_HELP),),
)


def run(ctx: Context, args: Parsed) -> int:
    """Print what daemon and client say of themselves."""
    from sampan.cli.cliplugins import listed
    from sampan.cli.commands.version import client_version
    from sampan.cli.connect import current_context

    plugins = [plugin.as_json() for plugin in listed(ctx.options)]
    client = {"Debug": ctx.options.bool("debug"), **client_version("", current_context(ctx.options)), "Plugins": plugins, "Warnings": None}
    layout = args.str("format")
    info: dict[str, Any] | None = None
    failed: CliError | None = None
    errors: list[str] = []
    if not layout or _needs_server(layout, client):
        try:
            info = ctx.client.request("GET", "/info").json()
        except ApiError as error:
            errors.append(error.message)
            if layout:
                ctx.error(error.message)
        except CliError as error:
            failed = error
    if layout:
        return _formatted(layout, {**(info or {}), "ClientInfo": client, "ServerErrors": errors or None}, failed)
    lines = [
        f"Client: {client['Platform']['Name']}",
        f" Version:    {client['Version']}",
        f" Context:    {client['Context']}",
        f" Debug Mode: {_bool(client['Debug'])}",
        *_plugin_lines(plugins),
        "",
        "Server:",
    ]
    if info is not None:
        lines += [*server_lines(info), ""]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    for plugin in plugins:
        if plugin["Err"]:
            ctx.error(f"WARNING: Plugin {quote(plugin['Path'])} is not valid: {plugin['Err']}")
    for warning in (info or {}).get("Warnings") or ():
        ctx.error(warning)
    for text in errors:
        ctx.error(f"ERROR: {text}")
    messages = ["errors pretty printing info"] if errors else []
    messages += [failed.message] if failed else []
    if messages:
        raise CliError("\n".join(messages))
    return 0


def _plugin_lines(plugins: list[dict[str, Any]]) -> list[str]:
    lines = [" Plugins:"] if plugins else []
    for one in plugins:
        if not one["Err"]:
            lines.append(f"  {one['Name']}: {one.get('ShortDescription', '')} ({one['Vendor']})")
            lines += [f"    Version:  {one['Version']}"] if one.get("Version") else []
            lines.append(f"    Path:     {one['Path']}")
    return lines


def _needs_server(layout: str, client: dict[str, Any]) -> bool:
    """Whether a template asks for more than the client's own facts."""
    if layout in ("json", "{{json .}}") or not any(char == "." and layout[at + 1 : at + 2].isalpha() for at, char in enumerate(layout)):
        return True
    from sampan.cli.format import schema
    from sampan.cli.format.execute import Template, TemplateError
    from sampan.cli.format.values import GoList, Struct

    sparse = schema.StructType(
        "system.sparseInfo", [schema.Field("ClientInfo, *system.clientInfo"), schema.Field("ClientErrors, []string")]
    )
    fields = {"ClientInfo": schema.decode("*system.clientInfo", client), "ClientErrors": GoList("[]string")}
    try:
        Template(layout).execute(Struct(sparse, fields))
    except TemplateError:
        return True
    return False


def _formatted(layout: str, info: dict[str, Any], failed: CliError | None) -> int:
    from sampan.cli.format import schema
    from sampan.cli.format.formatter import parse
    from sampan.cli.format.lex import TemplateError

    messages = [failed.message] if failed else []
    code = 1
    try:
        template = parse("{{json .}}" if layout == "json" else layout)
        try:
            out = template.execute(schema.decode("system.dockerInfo", info)) + "\n"
        except TemplateError as error:
            out = getattr(error, "partial", "") + "\n"
            messages.append(str(error))
        sys.stdout.write(out)
        sys.stdout.flush()
    except CliError as error:
        messages.append(error.message)
        code = error.code if not failed else 1
    if messages:
        raise CliError("\n".join(messages), code)
    return 0


def _bool(value: object) -> str:
    return "true" if value else "false"


def _named(lines: list[str], label: str, value: object) -> None:
    """A line that is left out when it has nothing to say."""
    if value not in ("", None):
        lines.append(f" {label}: {value}")


def server_lines(info: dict[str, Any]) -> list[str]:
    """The `Server:` part, line by line."""
    get = info.get
    lines = [
        f" Containers: {get('Containers') or 0}",
        f"  Running: {get('ContainersRunning') or 0}",
        f"  Paused: {get('ContainersPaused') or 0}",
        f"  Stopped: {get('ContainersStopped') or 0}",
        f" Images: {get('Images') or 0}",
    ]
    _named(lines, "Server Version", get("ServerVersion"))
    _named(lines, "Storage Driver", get("Driver"))
    lines += [f"  {pair[0]}: {pair[1]}" for pair in get("DriverStatus") or ()]
    lines += [f" {pair[0]}: {pair[1]}" for pair in get("SystemStatus") or ()]
    _named(lines, "Logging Driver", get("LoggingDriver"))
    _named(lines, "Cgroup Driver", get("CgroupDriver"))
    _named(lines, "Cgroup Version", get("CgroupVersion"))
    plugins = get("Plugins") or {}
    lines += [" Plugins:", "  Volume: " + " ".join(plugins.get("Volume") or ()), "  Network: " + " ".join(plugins.get("Network") or ())]
    if plugins.get("Authorization"):
        lines.append("  Authorization: " + " ".join(plugins["Authorization"]))
    lines.append("  Log: " + " ".join(plugins.get("Log") or ()))
    if get("CDISpecDirs"):
        lines += [" CDI spec directories:", *(f"  {path}" for path in info["CDISpecDirs"])]
    if get("DiscoveredDevices"):
        lines += [" Discovered Devices:", *(f"  {one.get('Source', '')}: {one.get('ID', '')}" for one in info["DiscoveredDevices"])]
    lines += _swarm(get("Swarm") or {})
    if get("Runtimes"):
        lines += [" Runtimes: " + " ".join(sorted(info["Runtimes"])), f" Default Runtime: {get('DefaultRuntime') or ''}"]
    if get("OSType") == "linux":
        lines += _linux(info)
    return lines + _host(info)


def _swarm(swarm: dict[str, Any]) -> list[str]:
    state = swarm.get("LocalNodeState") or ""
    lines = [f" Swarm: {state}"]
    if state in ("inactive", "locked", ""):
        return lines
    lines.append(f"  NodeID: {swarm.get('NodeID') or ''}")
    if swarm.get("Error"):
        lines.append(f"  Error: {swarm['Error']}")
    lines.append(f"  Is Manager: {_bool(swarm.get('ControlAvailable'))}")
    if swarm.get("Cluster") and swarm.get("ControlAvailable"):
        lines += [
            f"  ClusterID: {swarm['Cluster'].get('ID', '')}",
            f"  Managers: {swarm.get('Managers') or 0}",
            f"  Nodes: {swarm.get('Nodes') or 0}",
        ]
    lines.append(f"  Node Address: {swarm.get('NodeAddr') or ''}")
    managers = sorted(one.get("Addr") or "" for one in swarm.get("RemoteManagers") or ())
    return lines + (["  Manager Addresses:", *(f"   {address}" for address in managers)] if managers else [])


def _linux(info: dict[str, Any]) -> list[str]:
    lines = [f" Init Binary: {info.get('InitBinary') or ''}"]
    for label, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        lines.append(f" {label} version: {(info.get(key) or {}).get('ID') or ''}")
    options = info.get("SecurityOptions") or ()
    if options:
        lines.append(" Security Options:")
    for option in options:
        pairs = [part.partition("=")[::2] for part in option.split(",")]
        lines += [f"  {value}" for key, value in pairs if key == "name"] or [f"  {option}"]
        lines += [f"   Profile: {value}" for key, value in pairs if key == "profile"]
    return lines


def _host(info: dict[str, Any]) -> list[str]:
    from sampan.units import bytes_size

    get = info.get
    lines: list[str] = []
    for label, key in (
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    ):
        _named(lines, label, get(key))
    lines += [f" CPUs: {get('NCPU') or 0}", f" Total Memory: {bytes_size(get('MemTotal') or 0)}"]
    _named(lines, "Name", get("Name"))
    _named(lines, "ID", get("ID"))
    lines += [f" Docker Root Dir: {get('DockerRootDir') or ''}", f" Debug Mode: {_bool(get('Debug'))}"]
    if get("Debug"):
        lines += [
            f"  File Descriptors: {get('NFd') or 0}",
            f"  Goroutines: {get('NGoroutines') or 0}",
            f"  System Time: {get('SystemTime') or ''}",
            f"  EventsListeners: {get('NEventsListener') or 0}",
        ]
    for label, key in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        _named(lines, label, get(key))
    if get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in info["Labels"])]
    lines.append(f" Experimental: {_bool(get('ExperimentalBuild'))}")
    registry = get("RegistryConfig") or {}
    cidrs, indexes = registry.get("InsecureRegistryCIDRs") or [], registry.get("IndexConfigs") or {}
    if cidrs or indexes:
        insecure = [one.get("Name") or "" for _, one in sorted(indexes.items()) if not one.get("Secure")]
        lines += [" Insecure Registries:", *(f"  {name}" for name in [*insecure, *cidrs])]
    if registry.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in registry["Mirrors"])]
    others = [one for _, one in sorted(indexes.items()) if one.get("Mirrors") and not one.get("Official")]
    for one in others:  # Sampan's own: docker has mirrors of docker.io only
        lines += [f" Registry Mirrors of {one.get('Name')}:", *(f"  {mirror}" for mirror in one["Mirrors"])]
    lines.append(f" Live Restore Enabled: {_bool(get('LiveRestoreEnabled'))}")
    if get("ProductLicense"):
        lines.append(f" Product License: {info['ProductLicense']}")
    if get("DefaultAddressPools"):
        lines += [
            " Default Address Pools:",
            *(f"   Base: {one.get('Base', '')}, Size: {one.get('Size', 0)}" for one in info["DefaultAddressPools"]),
        ]
    return lines
