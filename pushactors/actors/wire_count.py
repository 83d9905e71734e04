"""How many deliveries of each push are on the wire now: sent, and not yet told to be anything else.

1. A delivery goes on when it is handed to a visit. It goes off when it waits again, or when its verdict is durable: so
   beside what the store knows at an instant, the sums are exact (C1).
2. Going off twice is once. Of a device that is lost, all go off.
"""

from __future__ import annotations

from pushactors.wire.ids import DeviceNo, MsgId


class WireCount:
    __slots__ = ("_by_device", "_counts")

    def __init__(self) -> None:
        self._counts: dict[MsgId, int] = {}
        self._by_device: dict[DeviceNo, set[MsgId]] = {}

    def on(self, msg_id: MsgId, device_no: DeviceNo) -> None:
        self._counts[msg_id] = self._counts.get(msg_id, 0) + 1
        self._by_device.setdefault(device_no, set()).add(msg_id)

    def off(self, msg_id: MsgId, device_no: DeviceNo) -> None:
        here = self._by_device.get(device_no)
        if here is None or msg_id not in here:
            return
        here.remove(msg_id)
        if not here:
            del self._by_device[device_no]
        if self._counts[msg_id] == 1:
            del self._counts[msg_id]
        else:
            self._counts[msg_id] -= 1

    def all_off(self, device_no: DeviceNo) -> None:
        for msg_id in tuple(self._by_device.get(device_no, ())):
            self.off(msg_id, device_no)

    def of(self, msg_id: MsgId) -> int:
        return self._counts.get(msg_id, 0)
