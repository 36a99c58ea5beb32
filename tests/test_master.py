from __future__ import annotations

import daemonkit
from daemonkit.master import Daemon, Master


def test_the_original_s_master_is_the_daemon() -> None:
    assert Master is Daemon is daemonkit.Daemon is daemonkit.Master
