from __future__ import annotations

from daemonkit.supervision.handle import Handle

from .slaves import Worker


class Quiet(Worker):
    def __init__(self, number: int) -> None:
        self.number = number


def test_a_handle_is_whatever_slave_it_leads_to_now() -> None:
    handle = Handle()
    handle.slave = Quiet(1)
    proxy = handle.proxy()
    assert isinstance(proxy, Quiet)
    first, registry = proxy.number, {proxy}
    handle.slave = second = Quiet(2)
    proxy.number = 3

    assert (first, second.number) == (1, 3)
    assert proxy in registry
    assert proxy in {proxy: 1}
    assert proxy != second
    assert proxy.run.__self__ is second  # type: ignore[attr-defined]
