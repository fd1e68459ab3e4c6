"""Networks as the engine holds them: the predefined ones and those of users, with the bridge of each; found by docker's rules."""

import sqlite3
from collections.abc import Iterator
from functools import partial

from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound
from sampan.findings import Finding
from sampan.ids import new_id
from sampan.network.bridge import Bridge
from sampan.network.names import NetworkNames
from sampan.state.containers import MetaRepository
from sampan.state.networks import NetworkRepository, NetworkRow

PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}
"""Names and drivers of the networks that every engine has."""
LONGEST_NAME = 255


class Network:
    """One network. Its row never changes."""

    def __init__(self, row: NetworkRow, bridge: Bridge | None) -> None:
        """bridge: None for host and none."""
        self.row = row
        self.bridge = bridge
        self.removing = False
        """Nobody may join it any more."""
        self.names = NetworkNames(row.name)
        """What the containers on it are called; empty for the predefined ones, which have no name service."""

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.row.id

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return self.row.name

    @property
    def is_predefined(self) -> bool:
        """Whether docker has it by itself."""
        return self.row.name in PREDEFINED


class NetworkStore:
    """The table of networks, and its only way into the database."""

    def __init__(self, repository: NetworkRepository, meta: MetaRepository) -> None:
        self._repository = repository
        self._meta = meta
        self._by_name: dict[str, Network] = {}

    def stored(self) -> list[NetworkRow]:
        """What users made, as it was stored."""
        return self._repository.all()

    def add_predefined(self, name: str, created: int, bridge: Bridge | None = None) -> None:
        """bridge, host or none; its ID is kept for as long as the data root."""
        network_id = self.predefined_id(name)
        self._by_name[name] = Network(NetworkRow(id=network_id, name=name, created=created, driver=PREDEFINED[name]), bridge)

    def predefined_id(self, name: str) -> str:
        """The ID of bridge, host or none, the same for as long as there is the data root."""
        key = f"network-{name}"
        network_id = self._meta.get(key)
        if network_id is None:
            network_id = new_id()
            self._meta.put(key, network_id)
        return network_id

    def load(self, row: NetworkRow, bridge: Bridge | None) -> None:
        """Take over a network that is stored already."""
        self._by_name[row.name] = Network(row, bridge)

    def check_name(self, name: str) -> None:
        """Raises InvalidArgument, Forbidden, Conflict in docker's words when no network can be made with this name."""
        if not name.strip():
            raise InvalidArgument("invalid name: name is empty")
        if name in (*PREDEFINED, "default"):
            raise Forbidden(f"operation is not permitted on predefined {name} network")
        if len(name) > LONGEST_NAME:
            raise InvalidArgument(f"invalid name: more than {LONGEST_NAME} characters")
        if name in self._by_name:
            raise Conflict(f"network with name {name} already exists")

    def add(self, row: NetworkRow, bridge: Bridge | None) -> Network:
        """Store a new network. Raises Conflict when the name is taken."""
        try:
            self._repository.insert(row)
        except sqlite3.IntegrityError:
            raise Conflict(f"network with name {row.name} already exists") from None
        network = self._by_name[row.name] = Network(row, bridge)
        return network

    def remove(self, network: Network) -> None:
        """Forget a network."""
        self._repository.delete(network.id)
        self._by_name.pop(network.name, None)

    def look(self) -> Iterator[Finding]:
        """Where the database is not what is in use here."""
        stored = {row.id for row in self._repository.all()}
        known = {network.id: network for network in self._by_name.values() if not network.is_predefined}
        for key in stored - known.keys():
            yield Finding("database", key, "is a network that the engine does not know", "forget it", partial(self._repository.delete, key))
        for key in known.keys() - stored:
            yield Finding("network", known[key].name, "is not stored any more", "store it", partial(self._store_again, known[key]))

    def _store_again(self, network: Network) -> None:
        if self._by_name.get(network.name) is network and network.id not in {row.id for row in self._repository.all()}:
            self._repository.insert(network.row)

    def __iter__(self) -> Iterator[Network]:
        return iter(list(self._by_name.values()))

    def get(self, name: str) -> Network | None:
        """By name."""
        return self._by_name.get(name)

    def find(self, ref: str) -> Network:
        """By full ID, name, or unique prefix of an ID. Raises NotFound, InvalidArgument when ambiguous."""
        networks = list(self._by_name.values())
        for network in networks:
            if network.id == ref:
                return network
        if ref in self._by_name:
            return self._by_name[ref]
        matches = [network for network in networks if ref and network.id.startswith(ref)]
        if len(matches) > 1:
            raise InvalidArgument(f"network {ref} is ambiguous ({len(matches)} matches found on ID prefix)")
        if not matches:
            raise NotFound(f"network {ref} not found")
        return matches[0]
