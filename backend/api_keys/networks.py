"""Check from which addresses a key may be used."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ..core.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_TEXT = 64  # characters; the longest block takes 49
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def parse_network(text: str) -> Network:
    """Parse a block; return an IPv4-mapped one as IPv4. Raises ValueError if it has host bits."""
    if len(text) > _MAX_TEXT:
        raise ValueError("too long for an address block")
    length = text.partition("/")[2]
    if "/" in text and str(int(length)) != length:
        raise ValueError("a mask is not a prefix length")
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network):
        if network.network_address.scope_id:
            raise ValueError("a zone is not part of an address block")
        if network.subnet_of(_MAPPED):
            low = int(network.network_address) & 0xFFFFFFFF
            return ipaddress.IPv4Network((low, network.prefixlen - 96))
    return network


def parse_address(text: str) -> Address:
    """Parse an address; return an IPv4-mapped one as IPv4. Raises ValueError if it is not one."""
    if len(text) > _MAX_TEXT:
        raise ValueError("too long for an address")
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise ValueError("a zone is not part of an address")
        return address.ipv4_mapped or address
    return address


def allows(blocks: Iterable[str], address: str | None) -> bool:
    """Return whether a block contains the address; without blocks, all addresses are allowed."""
    blocks = list(blocks)
    if not blocks:
        return True
    try:
        known = parse_address(address or "")
    except ValueError:
        return False
    return any(known in ipaddress.ip_network(block) for block in blocks)


def within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    """Return whether `outer` allows every address that `inner` allows."""
    around = [ipaddress.ip_network(block) for block in outer]
    if not around:
        return True
    blocks = [ipaddress.ip_network(block) for block in inner]
    return bool(blocks) and all(
        any(block.version == each.version and block.subnet_of(each) for each in around)  # type: ignore[arg-type]
        for block in blocks
    )
