"""Rows of networks. Sockets are the benchmark's own, made in the namespaces of containers: no client program is measured."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

from bench.rows import Row, RunNone, seconds
from bench.target import require
from sampan.linux import libc
from sampan.linux.namespaces import CLONE_NEWNET

PORT = 8000
LOOKUPS = 500
CONNECTS = 200
BUFFER = 1 << 20


def inside(pid: int, call: Callable[[], Any]) -> Any:
    """What a call gives in the network namespace of a process. Raises what it raises."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            libc.setns(netns, CLONE_NEWNET)
            os.close(netns)
            found.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def parent(pid: int) -> int:
    """Who runs in the engine's own network namespace, whichever that is."""
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def listen() -> socket.socket:
    return socket.create_server(("0.0.0.0", PORT), backlog=128)


def stream(server: socket.socket, client: Callable[[], socket.socket], size: int) -> float:
    """Seconds of size bytes from who connects to who listens."""
    total = 0

    def take() -> None:
        nonlocal total
        connection, _ = server.accept()
        with connection:
            buffer = bytearray(BUFFER)
            while got := connection.recv_into(buffer):
                total += got

    taker = threading.Thread(target=take)
    taker.start()
    begin = time.perf_counter()
    with client() as connection:
        data = bytes(BUFFER)
        for _ in range(size // BUFFER):
            connection.sendall(data)
    taker.join()
    took = time.perf_counter() - begin
    require(total == size, f"{total} bytes of {size}")
    return took


class OnNetwork(Row):
    """Two containers on a network of the benchmark's own."""

    def prepare(self) -> None:
        name = self.target.network("net")
        self.server, self.client = (self.target.run("sleep", "900", network=name) for _ in range(2))
        self.pids = [self.shown(one)["State"]["Pid"] for one in (self.server, self.client)]
        self.address = self.shown(self.server)["NetworkSettings"]["Networks"][name]["IPAddress"]

    def shown(self, container: str) -> Any:
        return self.target.call("GET", f"/containers/{container}/json")


class Between(OnNetwork):
    goals: ClassVar[dict[str, float]] = {"net_1GB": 1.05}

    def sample(self) -> dict[str, float]:
        with inside(self.pids[0], listen) as server:
            took = stream(server, lambda: inside(self.pids[1], lambda: socket.create_connection((self.address, PORT))), 1 << 30)
        return {"net_1GB": took}


class Lookup(OnNetwork):
    goals: ClassVar[dict[str, float]] = {"dns_lookup": 1.0}

    def sample(self) -> dict[str, float]:
        name = self.server[:12].encode()
        query = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + bytes([len(name)]) + name + b"\0" + struct.pack("!HH", 1, 1)

        def ask() -> float:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.settimeout(5)
                asker.connect(("127.0.0.11", 53))

                def once() -> bytes:
                    asker.send(query)
                    return asker.recv(4096)

                took, answer = seconds(once, times=LOOKUPS)
                require(answer.endswith(socket.inet_aton(self.address)), answer)
                return took

        return {"dns_lookup": inside(self.pids[1], ask)}


class Publish(Row):
    goals: ClassVar[dict[str, float]] = {"publish_connect": 0.7, "publish_500MB": 0.6}

    def prepare(self) -> None:
        bindings = {f"{PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
        container = self.target.run("sleep", "900", network="bridge", host={"PortBindings": bindings}, ExposedPorts={f"{PORT}/tcp": {}})
        shown = self.target.call("GET", f"/containers/{container}/json")
        self.pid = shown["State"]["Pid"]
        self.port = int(shown["NetworkSettings"]["Ports"][f"{PORT}/tcp"][0]["HostPort"])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def sample(self) -> dict[str, float]:
        with inside(self.pid, listen) as server:

            def once() -> None:
                with self.connect(), server.accept()[0]:
                    pass

            outside = parent(self.pid)
            took = inside(outside, lambda: seconds(once, times=CONNECTS)[0])
            size = 500 * BUFFER
            return {"publish_connect": took, "publish_500MB": stream(server, lambda: inside(outside, self.connect), size)}


class RunAmongMany(RunNone):
    """A life on the default network while there are 200 others."""

    goals: ClassVar[dict[str, float]] = {"run_bridge_200_networks": 0.12}
    network = "bridge"

    def prepare(self) -> None:
        for number in range(200):
            self.target.network(f"n{number}", f"10.{230 + number // 100}.{number % 100}.0/24")


ROWS: tuple[type[Row], ...] = (Between, Lookup, Publish, RunAmongMany)
