"""The engine's own nftables table, and the way through a host firewall that drops forwarded packets.

The ruleset is made once: a network is some elements of sets, a published port one element of a map, so that neither a packet nor a start
costs more where there are many networks. All of it goes with the table.
"""

import ipaddress
import logging
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from sampan.linux.nftables import Nftables, NftablesError
from sampan.network.ports import WILDCARDS, Published

log = logging.getLogger(__name__)


class Zone(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules know of one bridge network."""

    bridge: str
    """Its interface."""
    subnets: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    icc: bool = True
    """Whether its containers may talk to each other."""
    masqueraded: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """Those of its subnets that get the host's address in what leaves for elsewhere."""
    internal: bool = False
    """Whether nothing is forwarded to or from elsewhere."""
    unprotected: tuple[int, ...] = ()
    """IP versions in which hosts with a route reach every port of its containers."""

    @property
    def has_ipv6(self) -> bool:
        """Whether it has a subnet of IPv6."""
        return any(subnet.version == 6 for subnet in self.subnets)

    def elements(self, version: int) -> list[str]:
        """Its elements of the sets of one version's table, as `set { element }`."""
        name = f'"{self.bridge}"'
        found = [f"bridges {{ {name} }}", f"same {{ {name} . {name} }}"]
        found += [f"own {{ {name} . {subnet} }}" for subnet in self.subnets if subnet.version == version]
        if not self.icc:
            found.append(f"silent {{ {name} . {name} }}")
        if self.internal:
            found.append(f"internal {{ {name} }}")
        if version in self.unprotected:
            found.append(f"unprotected {{ {name} }}")
        return found + [f"masqueraded {{ {subnet} }}" for subnet in self.masqueraded if subnet.version == version]


_TABLE = """
add table {family} {table}
delete table {family} {table}
table {family} {table} {{
  map on_any {{ type inet_proto . inet_service : {address} . inet_service; }}
  map on_address {{ type inet_proto . {address} . inet_service : {address} . inet_service; }}
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  set unprotected {{ type ifname; }}
  set same {{ type ifname . ifname; }}
  set silent {{ type ifname . ifname; }}
  set own {{ type ifname . {address}; flags interval; }}
  set masqueraded {{ type {address}; flags interval; }}
  set opened {{ type {address} . inet_proto . inet_service; }}
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname @bridges {family} daddr {loopback} drop
  }}
  chain publish {{
    dnat {family} to meta l4proto . {family} daddr . th dport map @on_address
    dnat {family} to meta l4proto . th dport map @on_any
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    {family} daddr {loopback} return comment "a neighbour's packet: the routing code drops it as martian, DNAT before that would not"
    fib daddr type local meta l4proto {{ tcp, udp, sctp }} jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    {no_output}fib daddr type local meta l4proto {{ tcp, udp, sctp }} jump publish
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    {family} saddr @masqueraded oifname != @bridges masquerade
    {family} saddr {loopback} oifname @bridges masquerade
    oifname . {family} saddr @own ct status & dnat != 0 masquerade comment "not iifname: br_netfilter gives none here"
  }}
  chain forwarding {{
    type filter hook forward priority 0; policy accept;
    iifname . oifname @silent ct status & dnat == 0 drop
    iifname . oifname @same accept
    iifname @internal drop
    oifname @internal drop
    oifname @bridges ct state established,related accept
    oifname @bridges ct status & dnat != 0 accept
    iifname != @bridges {family} daddr . meta l4proto . th dport @opened accept
    iifname != @bridges oifname @unprotected accept
    oifname @bridges drop
  }}
}}
"""
_FAMILIES = {
    4: {"family": "ip", "address": "ipv4_addr", "loopback": "127.0.0.0/8", "no_output": ""},
    # The kernel does not route what was addressed to ::1: the userland proxy serves that.
    6: {"family": "ip6", "address": "ipv6_addr", "loopback": "::1", "no_output": "ip6 daddr ::1 return\n    "},
}
_NAMES = {4: "ip", 6: "ip6"}


def has_ipv6() -> bool:
    """Whether this host's kernel has IPv6 (`ipv6.disable=1` takes it away)."""
    return Path("/proc/sys/net/ipv6").is_dir()


class Firewall:
    """One engine's rules, for all its bridges. Methods raise NftablesError; they block."""

    def __init__(self, table: str, *, ipv6: bool = False) -> None:
        """ipv6: whether this host has it, so that there are rules for it too. Raises NftablesError when libnftables is missing."""
        self._nft = Nftables()
        self.table = table
        self._versions = (4, 6) if ipv6 else (4,)

    def create(self, zones: Iterable[Zone] = ()) -> None:
        """Make the tables anew with these networks, in one transaction; there are no published ports then."""
        tables = "".join(_TABLE.format(table=self.table, **_FAMILIES[version]) for version in self._versions)
        self._nft.run(tables + self._of_zones("add", list(zones)))

    def is_there(self) -> bool:
        """Whether our tables are; somebody may have flushed them."""
        try:
            self._nft.run("\n".join(f"list set {_NAMES[version]} {self.table} bridges" for version in self._versions))
        except NftablesError:
            return False
        return True

    def add(self, zone: Zone) -> None:
        """Have a network under the rules, before its bridge forwards anything."""
        self._nft.run(self._of_zones("add", [zone]))

    def drop(self, zone: Zone) -> None:
        """Forget a network; its bridge is gone."""
        self._nft.run(self._of_zones("delete", [zone]))

    def publish(self, forwarded: Mapping[Published, str]) -> None:
        """Send published ports to containers' addresses, all in one transaction."""
        self._nft.run(self._each("add", ((port, f"{_key(port)} : {address} . {port.port} }}") for port, address in forwarded.items())))

    def withdraw(self, ports: Iterable[Published]) -> None:
        """Take elements out again."""
        self._nft.run(self._each("delete", ((port, f"{_key(port)} }}") for port in ports)))

    def open(self, opened: Mapping[str, Iterable[Published]], *, verb: str = "add") -> None:
        """Let hosts with a route reach ports at containers' addresses, all in one transaction; verb `delete`: no more."""
        elements = dict.fromkeys(
            f"{verb} element {'ip6' if ':' in address else 'ip'} {self.table} opened {{ {address} . {port.protocol} . {port.port} }}"
            for address, ports in opened.items()
            for port in ports
        )
        self._nft.run("\n".join(elements))

    def _of_zones(self, verb: str, zones: Sequence[Zone]) -> str:
        return "\n".join(
            f"{verb} element {_NAMES[version]} {self.table} {element}"
            for version in self._versions
            for zone in zones
            for element in zone.elements(version)
        )

    def _each(self, verb: str, elements: Iterable[tuple[Published, str]]) -> str:
        return "\n".join(f"{verb} element {'ip6' if ':' in port.host_ip else 'ip'} {self.table} {element}" for port, element in elements)

    def remove(self) -> None:
        """Delete the tables."""
        for version in self._versions:
            self._nft.run(f"add table {_NAMES[version]} {self.table}\ndelete table {_NAMES[version]} {self.table}")


def _key(port: Published) -> str:
    if port.host_ip in WILDCARDS:
        return f"on_any {{ {port.protocol} . {port.host_port}"
    return f"on_address {{ {port.protocol} . {port.host_ip} . {port.host_port}"


def table_of(bridge: str, exec_root: str = "") -> str:
    """The name of an engine's table, made of its default bridge's name, or else of its exec-root: no other on the host has these."""
    return "sampan_" + "".join(
        letter if letter.isascii() and letter.isalnum() else "_" for letter in (exec_root if bridge == "none" else bridge)
    )


def _run(program: str, *arguments: str, text: str | None = None) -> tuple[int, str]:
    """(exit status, output, or what went to stderr when it failed) of one of the host's own tools."""
    try:
        done = subprocess.run([program, "-w", "5", *arguments], input=text, capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def legacy_is_in_use() -> bool:
    """Whether iptables-legacy's filter table is loaded; asking its tool would load it."""
    try:
        return "filter" in Path("/proc/net/ip_tables_names").read_text().split()
    except OSError:
        return False


def _tools(*, ipv6: bool) -> list[str]:
    """The iptables of this host; the legacy one too where its tables are in use."""
    found = ["iptables", "iptables-legacy"] if legacy_is_in_use() and shutil.which("iptables-legacy") else ["iptables"]
    return [*found, "ip6tables"] if ipv6 and shutil.which("ip6tables") else found


def _uplinks() -> list[str]:
    """Interfaces of the default routes (/proc/net/route: destination and mask are zero)."""
    rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    return sorted({row[0] for row in rows if row[1] == row[7] == "00000000"})


OTHER_ENGINES = ("docker0", "br-+", "cni+", "podman+", "virbr+", "lxcbr+", "lxdbr+")
"""Bridges of others (`+` is iptables' wildcard): whether a container of ours may go there is for the host's other rules to say."""


def _chain(bridge: str) -> str:
    return f"SAMPAN-{bridge}"


def _drops(rules: str) -> bool:
    """Whether a FORWARD chain (as `iptables -S` lists it) ends in dropping what it does not know."""
    lines = rules.splitlines()
    return "-P FORWARD DROP" in lines or any(line.startswith(("-A FORWARD -j DROP", "-A FORWARD -j REJECT")) for line in lines)


def open_forwarding(bridges: Sequence[str], bridges6: Collection[str] = ()) -> bool:
    """ACCEPT for bridges where the host's FORWARD chain drops: no rule of ours can overrule another table's drop. Whether it does.

    bridges6: those of them that have IPv6. What may reach a bridge is still decided by our own table, and what may leave it for another
    engine's bridge by the host's. Can be repeated, to put back what vanished. A failure is logged: the host's firewall is not ours to
    break. Few programs are run, however many bridges there are.
    """
    opened = False
    for tool in _tools(ipv6=bool(bridges6)) if bridges else ():
        code, rules = _run(tool, "-S")
        if code or not _drops(rules):
            continue
        opened = True
        lines = rules.splitlines()
        parent = "DOCKER-USER" if any("-j DOCKER-USER" in line for line in lines if line.startswith("-A FORWARD ")) else "FORWARD"
        chains = {line.split()[1] for line in lines if line.startswith("-A SAMPAN-")}
        there = {chain for chain in chains if f"-A {parent} -j {chain}" in lines}
        wanted = [name for name in bridges if _chain(name) not in there and (name in bridges6 or not tool.startswith("ip6"))]
        code, words = _run(f"{tool}-restore", "--noflush", text=_accept_rules(wanted, parent)) if wanted else (0, "")
        if code:
            log.warning("the host's FORWARD chain drops packets of %s: %s", ", ".join(wanted), words.strip())
    return opened


def _accept_rules(bridges: Iterable[str], parent: str) -> str:
    """For iptables-restore: each one's chain anew, and one jump to it at the head of parent."""
    uplinks = _uplinks()
    lines = [line for bridge in bridges for line in _chain_of(bridge, parent, uplinks)]
    return "\n".join(["*filter", *lines, "COMMIT"]) + "\n"


def _chain_of(bridge: str, parent: str, uplinks: Iterable[str]) -> list[str]:
    chain = _chain(bridge)
    rules = [
        f"-o {bridge} -j ACCEPT",
        f"-i {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        *(f"-i {bridge} -o {uplink} -j ACCEPT" for uplink in uplinks),
        *(f"-i {bridge} -o {other} -j RETURN" for other in OTHER_ENGINES),
        f"-i {bridge} -j ACCEPT",
    ]
    return [f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules), f"-I {parent} -j {chain}"]


def close_forwarding(bridge: str) -> None:
    """Take those rules and the chain out again."""
    for tool in _tools(ipv6=has_ipv6()):
        if _run(tool, "-S", _chain(bridge))[0]:
            continue
        for parent in ("DOCKER-USER", "FORWARD"):
            _run(tool, "-D", parent, "-j", _chain(bridge))
        _run(tool, "-F", _chain(bridge))
        _run(tool, "-X", _chain(bridge))
