"""Containers as inspect and list show them."""

import time

import msgspec

from sampan.clock import rfc3339nano
from sampan.engine import endpoints, health, launching, mounting
from sampan.engine.containerstore import Container
from sampan.engine.networkstore import PREDEFINED
from sampan.engine.paths import Paths
from sampan.logs.options import DEFAULT_DRIVER
from sampan.runtime.defaults import MASKED_PATHS, READONLY_PATHS
from sampan.snapshot.api import Snapshots, Usage
from sampan.spec.docker_api.container import HostConfig
from sampan.spec.docker_api.inspect import (
    ContainerInspect,
    ContainerStateShown,
    ContainerSummary,
    GraphDriverData,
    Health,
    HealthcheckResult,
    Port,
    SummaryHostConfig,
)
from sampan.spec.docker_api.network import EndpointSettings, NetworkSettings, PortBindingShown, SummaryNetworkSettings
from sampan.state.containers import HealthState
from sampan.units import human_duration


def status_text(container: Container, now_ns: int) -> str:
    """`Up 5 minutes`, `Exited (0) 2 hours ago`: the STATUS column (moby container/state.go)."""
    state = container.state
    if state.status in ("running", "paused"):
        up = human_duration(now_ns - state.started_at)
        if state.paused:
            return f"Up {up} (Paused)"
        return f"Up {up} ({health.shown(state.health)})" if state.health is not None else f"Up {up}"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {human_duration(now_ns - state.finished_at)} ago"
    if container.removing or state.status == "removing":
        return "Removal In Progress"
    if state.status == "dead":
        return "Dead"
    if not state.started_at:
        return "Created"
    return f"Exited ({state.exit_code}) {human_duration(now_ns - state.finished_at)} ago"


def _endpoints(container: Container) -> dict[str, EndpointSettings]:
    running = container.is_running
    places = {state.network_name: state for state in container.state.endpoints}
    shown = {}
    for name, asked in endpoints.configured(container).items():
        state = places.get(name)
        if container.host_config.network_mode.startswith("container:"):
            return {}
        known = msgspec.structs.replace(
            asked,
            network_id=state.network_id if state else "",
            endpoint_id="",
            mac_address="" if container.state.run else asked.mac_address,
        )
        if name not in PREDEFINED and container.state.run:
            known = msgspec.structs.replace(known, dns_names=endpoints.dns_names(container, name))
        if state is not None and running:
            known = msgspec.structs.replace(
                known, mac_address=state.mac, endpoint_id=state.endpoint_id, gateway=state.gateway, ip_address=state.ip,
                ip_prefix_len=state.prefix_len, ipv6_gateway=state.gateway6, global_ipv6_address=state.ip6,
                global_ipv6_prefix_len=state.prefix_len6,
            )  # fmt: skip
        shown[name] = known
    return shown


def _network_settings(container: Container) -> NetworkSettings:
    networks = _endpoints(container)
    places = container.state.endpoints if container.is_running else ()
    ports: dict[str, list[PortBindingShown] | None] = {}
    if any(state.ip or state.ip6 for state in places):
        ports.update(dict.fromkeys(container.config.exposed_ports or ()))
    published: dict[str, list[PortBindingShown]] = {}
    for state in places:
        for binding in state.ports:
            shown = PortBindingShown(host_ip=binding.host_ip, host_port=str(binding.host_port) if binding.host_port else "")
            published.setdefault(binding.port, []).append(shown)
    ports.update(published)
    default = networks.get("bridge") if places else None
    pid = container.state.pid
    return NetworkSettings(
        sandbox_id=places[0].endpoint_id if places else "",
        sandbox_key=f"/proc/{pid}/ns/net" if places and pid else "",
        ports=ports,
        endpoint_id=default.endpoint_id if default else "",
        gateway=default.gateway if default else "",
        ip_address=default.ip_address if default else "",
        ip_prefix_len=default.ip_prefix_len if default else 0,
        ipv6_gateway=default.ipv6_gateway if default else "",
        global_ipv6_address=default.global_ipv6_address if default else "",
        global_ipv6_prefix_len=default.global_ipv6_prefix_len if default else 0,
        mac_address=default.mac_address if default else "",
        networks=networks,
    )


def _host_config(host: HostConfig) -> HostConfig:
    """With the defaults that docker shows at inspect."""
    return msgspec.structs.replace(
        host,
        masked_paths=host.masked_paths if host.masked_paths is not None else None if host.privileged else list(MASKED_PATHS),
        readonly_paths=host.readonly_paths if host.readonly_paths is not None else None if host.privileged else list(READONLY_PATHS),
        cgroupns_mode=host.cgroupns_mode or "host",
        runtime=host.runtime or "runc",
        # docker-py reads the output of a run only where it finds this name; see docs/adr/0010.
        log_config=msgspec.structs.replace(host.log_config, type=host.log_config.type or DEFAULT_DRIVER),
    )


def _health(state: HealthState | None) -> Health | None:
    if state is None:
        return None
    results = [
        HealthcheckResult(start=rfc3339nano(item.start), end=rfc3339nano(item.end), exit_code=item.exit_code, output=item.output)
        for item in state.log
    ]
    return Health(status=state.status, failing_streak=state.failing_streak, log=results)


def _graph_data(container: Container, snapshots: Snapshots) -> dict[str, str]:
    """The driver's own, with a MergedDir that is there while the container runs: its root, as the kernel shows it to the host's root."""
    data = snapshots.details(container.id)
    return {**data, "MergedDir": f"/proc/{container.state.pid}/root"} if container.is_running and container.state.pid else data


def inspect(container: Container, paths: Paths, snapshots: Snapshots, log_path: str, links: list[str] | None) -> ContainerInspect:
    """GET /containers/{id}/json without sizes. links: as docker shows them."""
    state = container.state
    command = launching.command_of(container.config)
    directory = paths.container(container.id)
    running = container.is_running
    return ContainerInspect(
        id=container.id,
        created=rfc3339nano(container.created),
        path=command[0] if command else "",
        args=command[1:],
        state=ContainerStateShown(
            status=state.status,
            running=running or state.status == "restarting",
            paused=state.paused,
            restarting=state.status == "restarting",
            oom_killed=state.oom_killed,
            dead=state.status == "dead",
            pid=state.pid,
            exit_code=state.exit_code,
            error=state.error,
            started_at=rfc3339nano(state.started_at),
            finished_at=rfc3339nano(state.finished_at),
            health=_health(state.health),
        ),
        image=container.image_id,
        resolv_conf_path=f"{directory}/resolv.conf" if state.started_at else "",
        hostname_path=f"{directory}/hostname" if state.started_at else "",
        hosts_path=f"{directory}/hosts" if state.started_at else "",
        log_path=log_path,
        name=f"/{container.name}",
        restart_count=state.restart_count,
        driver=snapshots.driver,
        exec_ids=sorted(container.exec_ids) or None,
        host_config=msgspec.structs.replace(_host_config(container.host_config), links=links),
        graph_driver=GraphDriverData(data=_graph_data(container, snapshots), name=snapshots.driver),
        mounts=mounting.mount_points(container.mounts, paths.volumes),
        config=container.config,
        network_settings=_network_settings(container),
    )


def ports_of(container: Container) -> list[Port]:
    """The PORTS column's data."""
    if not container.is_running:
        return []
    published = [binding for state in container.state.endpoints for binding in state.ports]
    found = [
        Port(ip=item.host_ip, private_port=int(item.port.partition("/")[0]), public_port=item.host_port, type=item.port.partition("/")[2])
        for item in published
    ]
    taken = {item.port for item in published}
    for port in container.config.exposed_ports or {} if any(state.ip or state.ip6 for state in container.state.endpoints) else {}:
        number, _, protocol = port.partition("/")
        if port not in taken and number.isascii() and number.isdecimal() and len(number) < 6:  # else nothing that could be listened at
            found.append(Port(private_port=int(number), type=protocol or "tcp"))
    return found


def _shown_command(container: Container) -> str:
    """Path and arguments in one string; an argument with a space is quoted with single quotes (moby daemon/list.go)."""
    words = launching.command_of(container.config)
    rest = [f"'{word}'" if " " in word else word for word in words[1:]]
    return " ".join([*words[:1], *rest])


def summary(container: Container, image_now: str | None, usage: Usage | None, image_size: int, volumes: str) -> ContainerSummary:
    """One entry of a list; image_now: the ID that its image's name has now (another: the name is replaced by the ID); volumes: the
    directory they are in."""
    moved = image_now is not None and image_now != container.image_id
    return ContainerSummary(
        id=container.id,
        names=[f"/{container.name}"],
        image=container.image_id if moved or image_now is None else container.image_name,
        image_id=container.image_id,
        command=_shown_command(container),
        created=container.created // 1_000_000_000,
        ports=ports_of(container),
        size_rw=usage.size if usage else 0,
        size_root_fs=usage.size + image_size if usage else 0,
        labels=container.config.labels or {},
        state="removing" if container.removing else container.state.status,
        status=status_text(container, time.time_ns()),
        host_config=SummaryHostConfig(network_mode=container.host_config.network_mode, annotations=container.host_config.annotations),
        network_settings=SummaryNetworkSettings(networks=_endpoints(container)),
        mounts=mounting.mount_points(container.mounts, volumes),
    )
