from __future__ import annotations

import pytest

from pushactors import Displaced, ProtocolBroken, PushactorsError, Removed, TurnedAway, Unauthorized
from pushactors.clients.partings import parting


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (4500, Displaced),
        (4501, Unauthorized),
        (4502, ProtocolBroken),
        (4503, Removed),
        (1002, ProtocolBroken),
        (1003, ProtocolBroken),
        (1007, ProtocolBroken),
        (1009, ProtocolBroken),
        (1000, TurnedAway),
        (4777, TurnedAway),
    ],
)
def test_a_close_for_good_has_a_name_that_says_what_to_do(code: int, cls: type[PushactorsError]) -> None:
    error = parting(code, "why")
    assert type(error) is cls
    assert "why" in str(error)
    if isinstance(error, TurnedAway):
        assert error.code == code
