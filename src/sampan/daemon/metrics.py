"""/metrics of --metrics-addr: docker's names (moby daemon/internal/metrics), which dashboards know, and our own."""

import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from sampan.api.connection import Target
from sampan.api.http import Request, Response, error_response
from sampan.api.router import Route
from sampan.daemon.loopwatch import LoopWatch
from sampan.engine.buildfailures import FAILURES
from sampan.engine.containerstore import Containers
from sampan.engine.probing import HealthMonitor
from sampan.events.bus import EventBus
from sampan.metrics import CONTENT_TYPE, Labels, Metrics
from sampan.spec.docker_api.system import SystemInfo
from sampan.version import VERSION

if TYPE_CHECKING:
    from sampan.engine.build import BuildService

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""docker's, in seconds."""
KINDS: Final = {
    "container": "The number of seconds it takes to process each container action",
    "network": "The number of seconds it takes to process each network action",
    "image": "The number of seconds it takes to process each image action",
}
HOST_INFO: Final = "engine_daemon_host_info_functions_seconds"
HEALTH_START: Final = "engine_daemon_health_check_start_duration_seconds"
FUNCTIONS: Final[Mapping[tuple[str, str], str]] = {("GET", "/info"): "system_info", ("GET", "/version"): "system_version"}
ACTIONS: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("POST", "/containers/create"): ("container", "create"),
    ("POST", "/containers/{id}/start"): ("container", "start"),
    ("GET", "/containers/{id}/changes"): ("container", "changes"),
    ("POST", "/commit"): ("container", "commit"),
    ("DELETE", "/containers/{id}"): ("container", "delete"),
    ("POST", "/networks/{id}/connect"): ("network", "connect"),
    ("POST", "/networks/{id}/disconnect"): ("network", "disconnect"),
    ("POST", "/images/create"): ("image", "pull"),
    ("POST", "/images/{name:.*}/push"): ("image", "push"),
    ("DELETE", "/images/{name:.*}"): ("image", "delete"),
}
BUILDS: Final = "builder_builds_triggered_total"
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Watched(NamedTuple):
    """What is asked when somebody looks."""

    containers: Containers
    events: EventBus
    health: HealthMonitor
    builds: "BuildService"
    loop: LoopWatch
    connections: Callable[[], int]


class EngineMetrics:
    """All of the engine."""

    def __init__(self) -> None:
        self._metrics = metrics = Metrics()
        for kind, text in KINDS.items():
            metrics.histogram(f"engine_daemon_{kind}_actions_seconds", text, "action", BUCKETS)
        metrics.histogram(HOST_INFO, "The number of seconds it takes to call functions gathering info about the host", "function", BUCKETS)
        metrics.histogram(HEALTH_START, "The number of seconds it takes to prepare to run health checks", "", BUCKETS)
        metrics.describe(BUILDS, "Number of triggered image builds")
        metrics.add(BUILDS, 0)
        _of_process(metrics)

    def observe(self, route: Route, seconds: float) -> None:
        """A request has been answered."""
        if (found := ACTIONS.get((route.method, route.path))) is not None:
            self._metrics.took(f"engine_daemon_{found[0]}_actions_seconds", found[1], seconds)
        elif (function := FUNCTIONS.get((route.method, route.path))) is not None:
            self._metrics.took(HOST_INFO, function, seconds)
        elif route.path == "/build":
            self._metrics.add(BUILDS)

    def network_took(self, action: str, seconds: float) -> None:
        """A container has got, or has given back, what it has of its networks."""
        self._metrics.took("engine_daemon_network_actions_seconds", action, seconds)

    def watch(self, watched: Watched, info: SystemInfo) -> None:
        """Show these, too."""
        metrics, (containers, events, health, builds, loop, connections) = self._metrics, watched
        health.prepared = partial(metrics.took, HEALTH_START, "")
        metrics.gauges(
            "engine_daemon_container_states_containers", "The count of containers in various states", lambda: _states(containers)
        )
        about = {
            "architecture": platform.machine(), "commit": VERSION, "daemon_id": info.id, "graphdriver": info.driver,
            "kernel": info.kernel_version, "os": info.operating_system, "os_type": "linux", "os_version": info.os_version,
            "version": info.server_version,
        }  # fmt: skip
        metrics.gauges(
            "engine_daemon_engine_info",
            "The information related to the engine and the OS it is running on",
            lambda: {tuple(about.items()): 1},
        )
        metrics.gauge("engine_daemon_engine_cpus_cpus", "The number of cpus that the host system of the engine has", lambda: info.ncpu)
        metrics.gauge(
            "engine_daemon_engine_memory_bytes",
            "The number of bytes of memory that the host system of the engine has",
            lambda: info.mem_total,
        )
        metrics.counter("engine_daemon_events_total", "The number of events logged", lambda: events.published)
        metrics.gauge("engine_daemon_events_subscribers_total", "The number of current subscribers to events", lambda: events.listeners)
        metrics.counter("engine_daemon_health_checks_total", "The total number of health checks", lambda: health.checks)
        metrics.counter("engine_daemon_health_checks_failed_total", "The total number of failed health checks", lambda: health.failed)
        metrics.counters(
            "builder_builds_failed_total",
            "Number of failed image builds",
            lambda: {(("reason", reason),): builds.failed[reason] for reason in FAILURES},
        )
        metrics.gauge("sampan_connections", "Clients that are connected.", connections)
        metrics.counter("sampan_event_loop_blocked_total", "How often the event loop stood still for seconds.", lambda: loop.times)
        metrics.gauge("sampan_event_loop_blocked_longest_seconds", "The longest of these times.", lambda: loop.longest)

    def resolve(self, request: Request) -> Target:
        """What the address has."""
        return Target(self._answer, False)

    def _answer(self, request: Request) -> Response:
        if request.path != "/metrics" or request.method not in ("GET", "HEAD"):
            return error_response(404, "page not found")._replace(routed=False)
        return Response(200, self._metrics.text().encode(), content_type=CONTENT_TYPE)._replace(routed=False)


def _states(containers: Containers) -> dict[Labels, float]:
    """docker has three states; what runs and is paused is paused."""
    counts = Counter("paused" if one.state.paused else "running" if one.is_running else "stopped" for one in containers)
    return {(("state", state),): counts[state] for state in ("paused", "running", "stopped")}


def _of_process(metrics: Metrics) -> None:
    """The names of every Prometheus client library."""

    def stat(index: int) -> int:
        """A field of proc(5)'s stat, counted as there."""
        with open("/proc/self/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[index - 3])

    started = time.time() - time.monotonic() + stat(22) / TICKS
    metrics.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", lambda: sum(os.times()[:2]))
    metrics.gauge("process_open_fds", "Number of open file descriptors.", lambda: len(os.listdir("/proc/self/fd")) - 1)
    metrics.gauge("process_max_fds", "Maximum number of open file descriptors.", lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    metrics.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", lambda: stat(23))
    metrics.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", lambda: stat(24) * PAGE)
    metrics.gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", lambda: started)
