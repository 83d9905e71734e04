"""A push server that keeps its word, and the clients of it: durable before told, one verdict for every delivery.

A device uses `DeviceClient`, an app server `AppClient`; both raise the errors below by name. The server itself is the
command `pushactors`.
"""

from pushactors.clients.app import AppClient
from pushactors.clients.device import DeviceClient
from pushactors.clients.durable import IdentityUnusable
from pushactors.clients.events import AliasChanged, Connected, ConnectionLost, DeviceEvent
from pushactors.clients.partings import Closed, Disconnected, Displaced, ProtocolBroken, Removed, TurnedAway
from pushactors.errors import (
    AliasFull,
    Busy,
    CidReused,
    Gone,
    InternalError,
    Invalid,
    NoSuchApp,
    NoSuchDevice,
    NoSuchMessage,
    NoTarget,
    PushactorsError,
    RateLimited,
    Refused,
    TooFrequent,
    TooLarge,
    Unauthorized,
)
from pushactors.wire.app import DeviceInfo, Presence, PushAnswer, Report, Status, TagHolders
from pushactors.wire.device import MessageNote as Message
from pushactors.wire.jsonrpc import RemoteError, UnknownMethod

__all__ = [
    "AliasChanged",
    "AliasFull",
    "AppClient",
    "Busy",
    "CidReused",
    "Closed",
    "Connected",
    "ConnectionLost",
    "DeviceClient",
    "DeviceEvent",
    "DeviceInfo",
    "Disconnected",
    "Displaced",
    "Gone",
    "IdentityUnusable",
    "InternalError",
    "Invalid",
    "Message",
    "NoSuchApp",
    "NoSuchDevice",
    "NoSuchMessage",
    "NoTarget",
    "Presence",
    "ProtocolBroken",
    "PushAnswer",
    "PushactorsError",
    "RateLimited",
    "Refused",
    "RemoteError",
    "Removed",
    "Report",
    "Status",
    "TagHolders",
    "TooFrequent",
    "TooLarge",
    "TurnedAway",
    "Unauthorized",
    "UnknownMethod",
]
