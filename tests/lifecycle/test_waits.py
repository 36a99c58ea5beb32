from __future__ import annotations

import threading

from daemonkit.lifecycle.waits import Waits


def test_a_wait_is_shown_only_inside_its_block() -> None:
    changes: list[list[str]] = []
    waits = Waits(lambda: changes.append(waits.shown()))

    with waits.waiting_for("the sockets"):
        pass

    assert changes == [["the sockets"], []]


def test_a_function_is_called_each_time() -> None:
    names = ["a"]
    waits = Waits(lambda: None)

    with waits.waiting_for(lambda: names):
        names.append("b")
        assert waits.shown() == ["a", "b"]


def test_the_outer_block_is_shown_again_after_the_inner_one() -> None:
    waits = Waits(lambda: None)

    with waits.waiting_for("outer"):
        with waits.waiting_for("inner"):
            assert waits.shown() == ["inner"]
        assert waits.shown() == ["outer"]


def test_threads_wait_for_different_things_at_the_same_time() -> None:
    waits = Waits(lambda: None)
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with waits.waiting_for("udp"):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with waits.waiting_for("run()"):
        thread.start()
        assert entered.wait(10)
        assert waits.shown() == ["run()", "udp"]
        leave.set()
        thread.join()
        assert waits.shown() == ["run()"]
