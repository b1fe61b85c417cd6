"""Which network addresses are public: the others belong to the server's own network.

The special blocks are those of IANA's IPv4 and IPv6 special-purpose address registries
(https://www.iana.org/assignments/iana-ipv4-special-registry, .../iana-ipv6-special-registry),
written out because what Python knows of them depends on its version.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address

_NOT_PUBLIC_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by customers of a provider
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local, where clouds keep their credentials
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112, answers for private names
            "192.52.193.0/24",  # multicast tunnels
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_UNICAST_6: Final = IPv6Network("2000::/3")  # all that was ever handed out
_NOT_PUBLIC_6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which holds an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public internet, never of a network of one's own.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64) is what that one is.
    """
    if isinstance(address, IPv6Address):
        inner = _inner(address)
        return _is_public_6(address) if inner is None else is_public(inner)
    return not any(address in block for block in _NOT_PUBLIC_4)


def _is_public_6(address: IPv6Address) -> bool:
    return (
        address.scope_id is None
        and address in _UNICAST_6
        and not any(address in block for block in _NOT_PUBLIC_6)
    )


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to this one go to, None where there is none."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
