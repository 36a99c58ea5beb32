from __future__ import annotations

import threading

import pytest

from daemonkit.system.handling import NOTHING, Handled, Handling, handled_now, pause


class Worker(Handling):
    def describe(self) -> Handled:
        return Handled(self.taken, self.taken, None)


def test_a_thread_handles_what_it_has_taken_until_it_pauses() -> None:
    seen: list[Handled | None] = []

    def work() -> None:
        worker = Worker()
        pause()
        seen.append(handled_now())
        worker.attach()
        seen.append(handled_now())
        worker.taken = 7
        seen.append(handled_now())
        pause()
        seen.append(handled_now())
        assert worker.taken is NOTHING

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [None, None, Handled(7, 7, None), None]
    assert handled_now() is None


@pytest.mark.parametrize(
    ("handled", "suffix", "fields"),
    [
        (Handled(7, 7, None), " [event 7]", {"event": 7}),
        (Handled(7, 7, "shop"), " [event 7 from shop]", {"event": 7, "sender": "shop"}),
        (
            Handled(7, 9, "shop"),
            " [events 7 to 9 from shop]",
            {"event": 7, "last_event": 9, "sender": "shop"},
        ),
    ],
)
def test_it_is_shown_in_text_and_in_json(
    handled: Handled, suffix: str, fields: dict[str, object]
) -> None:
    assert (handled.suffix(), handled.fields()) == (suffix, fields)


def test_what_a_base_class_has_taken_cannot_be_described() -> None:
    with pytest.raises(NotImplementedError):
        Handling().describe()
