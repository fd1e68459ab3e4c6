"""Who is called what on a user-defined network, and what one container sees of it: the tables behind the embedded DNS server. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from sampan.network.ipam import Address


class NetworkNames:
    """The names of one network's containers. Names are compared without regard to case, as DNS does."""

    def __init__(self, network: str) -> None:
        self.network = network
        self._by_name: dict[str, dict[str, tuple[Address, ...]]] = {}
        self._by_address: dict[Address, str] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self.version = 0
        """Another one after each change."""

    def add(self, container_id: str, names: Iterable[str], addresses: Sequence[Address]) -> None:
        """Names (the first is what a reverse query is told) and addresses of one container; what it had before is forgotten."""
        self.remove(container_id)
        self.version += 1
        ordered = tuple(dict.fromkeys(name.lower() for name in names if name))
        self._names[container_id] = ordered
        for name in ordered:
            self._by_name.setdefault(name, {})[container_id] = tuple(addresses)
        for address in addresses:
            if ordered:
                self._by_address[address] = ordered[0]

    def remove(self, container_id: str) -> None:
        """Forget a container; one that is not there is no error."""
        self.version += 1
        for name in self._names.pop(container_id, ()):
            holders = self._by_name[name]
            for address in holders.pop(container_id):
                self._by_address.pop(address, None)
            if not holders:
                del self._by_name[name]

    def resolve(self, name: str) -> tuple[Address, ...] | None:
        """All addresses of a name, several where containers share an alias; None when nobody is called so."""
        holders = self._by_name.get(name.lower())
        return tuple(address for addresses in holders.values() for address in addresses) if holders else None

    def reverse(self, address: Address) -> str | None:
        """The name of the container with this address, with the network's behind it, as docker answers."""
        name = self._by_address.get(address)
        return f"{name}.{self.network}" if name else None


class View:
    """The names one container may ask for: those of its networks, and its own links (alias → name of a container) on each of them."""

    def __init__(self, networks: Sequence[tuple[NetworkNames, Mapping[str, str]]]) -> None:
        self._networks = [(names, {alias.lower(): name for alias, name in links.items()}) for names, links in networks]

    @property
    def version(self) -> int:
        """Another one after each change."""
        return sum(names.version for names, _ in self._networks)

    def resolve(self, name: str) -> tuple[Address, ...] | None:
        """Addresses of `name` on the first network that knows it, else of `name.network`; None when none does.

        Both parts may have dots: the longest name of a container is tried first.
        """
        name = name.rstrip(".").lower()
        asked = [(name, names, links) for names, links in self._networks]
        suffixes = [(f".{names.network.lower()}", names, links) for names, links in self._networks]
        suffixes.sort(key=lambda item: len(item[0]))
        asked += [(name.removesuffix(suffix), names, links) for suffix, names, links in suffixes if name.endswith(suffix)]
        for container, names, links in asked:
            found = names.resolve(links.get(container, container))
            if found is not None:
                return found
        return None

    def reverse(self, address: Address) -> str | None:
        """The name of an address on one of the networks."""
        return next((found for names, _ in self._networks if (found := names.reverse(address))), None)
