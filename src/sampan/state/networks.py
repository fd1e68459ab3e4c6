"""Networks that users made, as they are stored."""

import msgspec

from sampan.state.database import Database


class Subnet(msgspec.Struct, frozen=True, omit_defaults=True):
    """One address range of a network, in CIDR form."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}
    """Names and addresses that are not given to containers."""
    asked: bool = True
    """Whether the user chose it; else it was a free one of the pools."""
    implied: bool = False
    """Whether the gateway was not the user's choice, though the subnet was: docker does not show it then."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.subnet else 4


class NetworkRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One network. Never changed after it was made."""

    id: str
    name: str
    created: int
    """Nanoseconds since the epoch."""
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    config_only: bool = False
    """Nothing but a configuration for others to be made from."""
    config_from: str = ""
    """The name of the network whose configuration it has."""
    options: dict[str, str] = {}
    ipam_options: dict[str, str] | None = None
    labels: dict[str, str] = {}

    def subnet(self, version: int) -> Subnet | None:
        """The first one of a family; of a bridge the only one."""
        return next(iter(self.of(version)), None)

    def of(self, version: int) -> list[Subnet]:
        """Those of a family that its containers get addresses of."""
        if not (self.enable_ipv4 if version == 4 else self.enable_ipv6):
            return []
        return [subnet for subnet in self.subnets if subnet.version == version]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(NetworkRow).decode


class NetworkRepository:
    """Reads and writes the networks table. Each method is one transaction, durable when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[NetworkRow]:
        """Every network, oldest first."""
        return [_decode(document) for (document,) in self._database.read().execute("SELECT document FROM networks ORDER BY created, id")]

    def insert(self, row: NetworkRow) -> None:
        """Add a network. Raises sqlite3.IntegrityError when the name is taken."""
        with self._database.transaction() as cx:
            cx.execute(
                "INSERT INTO networks (id, name, created, document) VALUES (?, ?, ?, ?)", (row.id, row.name, row.created, _encode(row))
            )

    def delete(self, network_id: str) -> None:
        """Remove the row."""
        with self._database.transaction() as cx:
            cx.execute("DELETE FROM networks WHERE id = ?", (network_id,))
