"""UDP multicast: one sender, any number of receivers, on one machine or on one network.

multicast://GROUP:PORT?interface=ADDRESS&hops=N      e.g. multicast://239.255.70.86:47800

Unless an interface is given, both ends use loopback, and nothing leaves the machine. With the address of an interface
the messages go out there, by default no further than the network it is in (hops=1).
"""

from __future__ import annotations

import ipaddress
import socket

from framegate.runtime.errors import SinkError, SourceError, UsageError
from framegate.runtime.handover.base import Address
from framegate.runtime.handover.udp import UdpIncoming, UdpOutgoing

LOOPBACK = "127.0.0.1"
_BUFFER = 1 << 20
_EXAMPLE = "multicast://239.255.70.86:47800"


def _group(address: Address) -> tuple[str, int]:
    """Group and port.

    Raises:
        UsageError: They are none.
    """
    address.require_options("interface", "hops")
    try:
        group = ipaddress.ip_address(address.host)
    except ValueError:
        group = None
    if group is None or group.version != 4 or not group.is_multicast or not address.port or address.path:
        raise UsageError(
            f"{address.text}: expected a group from 224.0.0.0 to 239.255.255.255 and a port, e.g. {_EXAMPLE}"
        )
    return str(group), address.port


def _interface(address: Address) -> bytes:
    """The interface's IPv4 address, as the system takes it.

    Raises:
        UsageError: It is none.
    """
    text = address.options.get("interface", LOOPBACK)
    try:
        return ipaddress.IPv4Address(text).packed
    except ValueError:
        raise UsageError(
            f"{address.text}: interface={text} is no IPv4 address of an interface; `ip -4 address` lists them"
        ) from None


def _hops(address: Address) -> int:
    """How many networks the messages may pass: 1 stays in the one of the interface.

    Raises:
        UsageError: It is no number from 0 to 255.
    """
    text = address.options.get("hops", "1")
    if not (text.isascii() and text.isdigit() and int(text) <= 255):
        raise UsageError(f"{address.text}: hops={text}; expected 0 (this machine) to 255")
    return int(text)


def _there_is_none(address: Address, problem: OSError) -> str:
    interface = address.options.get("interface", LOOPBACK)
    return f"{address.text}: the interface {interface} cannot be used ({problem.strerror}); `ip -4 address` lists them"


def open_outgoing(address: Address) -> UdpOutgoing:
    """A sender to a group.

    Raises:
        UsageError: The address or an option cannot be used.
        SinkError: No interface of this machine has the address.
    """
    target, interface, hops = _group(address), _interface(address), _hops(address)
    try:
        return UdpOutgoing(
            socket.AF_INET,
            target,
            address.text,
            (
                (socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface),
                (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops),
                (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1),
            ),
            socket.inet_ntoa(interface),
        )
    except OSError as problem:
        raise SinkError(_there_is_none(address, problem)) from None


def open_incoming(address: Address) -> UdpIncoming:
    """A receiver of a group; several may listen on one machine.

    Raises:
        UsageError: The address or an option cannot be used.
        SourceError: No interface of this machine has the address, or a program has the port for itself.
    """
    (group, port), interface = _group(address), _interface(address)
    _hops(address)
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        # Bound to the group: what is sent to this port of the machine itself is not heard.
        opened.bind((group, port))
    except OSError as problem:
        opened.close()
        raise SourceError(
            f"{address.text}: cannot listen there ({problem.strerror}); has another program the port for itself?"
        ) from None
    try:
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + interface)
        # Only what was joined here, not every group that some program of this machine has joined.
        opened.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_MULTICAST_ALL", 49), 0)
    except OSError as problem:
        opened.close()
        raise SourceError(_there_is_none(address, problem)) from None
    return UdpIncoming(opened, address.text)
