"""A push server that keeps its word, and the clients of it: durable before told, one verdict for every delivery.

A device uses `DeviceClient`, an app server `AppClient`; both raise the errors below by name. The server itself is the
command `pushactors`.
"""

from pushactors.clients.app import AppClient
from pushactors.clients.device import DeviceClient
from pushactors.clients.durable import IdentityUnusable
from pushactors.clients.events import AliasChanged, Connected, ConnectionLost, DeviceEvent, Recalled
from pushactors.clients.partings import Closed, Disconnected, Displaced, ProtocolBroken, Removed, TurnedAway
from pushactors.clients.receipts import ReceiptsMissing, ReceiptStream, StreamDisplaced, StreamEvent
from pushactors.clients.tray import Tray
from pushactors.clients.tray_rules import TrayEntry
from pushactors.errors import (
    AliasFull,
    Busy,
    CidReused,
    CursorGone,
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
from pushactors.wire.answers import (
    DeviceInfo,
    Presence,
    PushAnswer,
    Reason,
    Recall,
    Receipt,
    Report,
    Status,
    Subscribed,
    TagHolders,
    Timeline,
    TimelineEvent,
)
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
    "CursorGone",
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
    "Reason",
    "Recall",
    "Recalled",
    "Receipt",
    "ReceiptStream",
    "ReceiptsMissing",
    "Refused",
    "RemoteError",
    "Removed",
    "Report",
    "Status",
    "StreamDisplaced",
    "StreamEvent",
    "Subscribed",
    "TagHolders",
    "Timeline",
    "TimelineEvent",
    "TooFrequent",
    "TooLarge",
    "Tray",
    "TrayEntry",
    "TurnedAway",
    "Unauthorized",
    "UnknownMethod",
]
