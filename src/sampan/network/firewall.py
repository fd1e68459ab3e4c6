"""The bridge's own nftables table, and the way through a host firewall that drops forwarded packets.

The ruleset is made once; a published port is one element of a map. All of it goes with the table.
"""

import ipaddress
import logging
import subprocess
from collections.abc import Iterable

from sampan.linux.nftables import Nftables
from sampan.network.ports import Published

log = logging.getLogger(__name__)


class Firewall:
    """Rules of one bridge. Methods raise NftablesError; they block."""

    def __init__(self, instance: str, bridge: str) -> None:
        """Raises NftablesError when libnftables is missing."""
        self._nft = Nftables()
        self.table = "sampan_" + "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in instance)
        self._bridge = bridge

    def create(self, subnet: ipaddress.IPv4Network, *, icc: bool, masquerade: bool) -> None:
        """Make the table anew, in one transaction; there are no published ports then."""
        bridge = f'"{self._bridge}"'
        masquerades = f"ip saddr {subnet} oifname != {bridge} masquerade" if masquerade else ""
        between = f"iifname {bridge} oifname {bridge} ct status & dnat == 0 drop" if not icc else ""
        self._nft.run(f"""
add table ip {self.table}
delete table ip {self.table}
table ip {self.table} {{
  map on_any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map on_address {{ type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }}
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname {bridge} ip daddr 127.0.0.0/8 drop
  }}
  chain publish {{
    dnat ip to meta l4proto . ip daddr . th dport map @on_address
    dnat ip to meta l4proto . th dport map @on_any
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local meta l4proto {{ tcp, udp }} jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local meta l4proto {{ tcp, udp }} jump publish
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    {masquerades}
    ip saddr 127.0.0.0/8 oifname {bridge} masquerade
    iifname {bridge} oifname {bridge} ct status & dnat != 0 masquerade
  }}
  chain forwarding {{
    type filter hook forward priority 0; policy accept;
    {between}
    iifname {bridge} accept
    oifname {bridge} ct state established,related accept
    oifname {bridge} ct status & dnat != 0 accept
    oifname {bridge} drop
  }}
}}
""")

    def publish(self, address: str, ports: Iterable[Published]) -> None:
        """Send published ports to a container, all in one transaction."""
        self._nft.run("\n".join(f"add element ip {self.table} {self._key(port)} : {address} . {port.port} }}" for port in ports))

    def withdraw(self, ports: Iterable[Published]) -> None:
        """Take elements out again."""
        self._nft.run("\n".join(f"delete element ip {self.table} {self._key(port)} }}" for port in ports))

    @staticmethod
    def _key(port: Published) -> str:
        if port.host_ip == "0.0.0.0":
            return f"on_any {{ {port.protocol} . {port.host_port}"
        return f"on_address {{ {port.protocol} . {port.host_ip} . {port.host_port}"

    def remove(self) -> None:
        """Delete the table."""
        self._nft.run(f"add table ip {self.table}\ndelete table ip {self.table}")


def _iptables(*arguments: str) -> tuple[int, str]:
    try:
        done = subprocess.run(["iptables", "-w", "5", *arguments], capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def open_forwarding(bridge: str) -> None:
    """ACCEPT for the bridge where the host's FORWARD chain drops: no rule of ours can overrule another table's drop.

    What may reach the bridge is still decided by our own table. A failure is logged: the host's firewall is not ours to break.
    """
    code, rules = _iptables("-S", "FORWARD")
    if code or "-P FORWARD DROP" not in rules:
        return
    chain = "DOCKER-USER" if "-j DOCKER-USER" in rules else "FORWARD"
    for side in ("-i", "-o"):
        if _iptables("-C", chain, side, bridge, "-j", "ACCEPT")[0]:
            code, words = _iptables("-I", chain, side, bridge, "-j", "ACCEPT")
            if code:
                log.warning("the host's FORWARD chain drops packets of %s: %s", bridge, words.strip())


def close_forwarding(bridge: str) -> None:
    """Take those rules out again."""
    for chain in ("DOCKER-USER", "FORWARD"):
        for side in ("-i", "-o"):
            _iptables("-D", chain, side, bridge, "-j", "ACCEPT")
