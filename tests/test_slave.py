from __future__ import annotations

import daemonkit
import daemonkit.slave


def test_the_original_s_slave_is_ours() -> None:
    assert daemonkit.slave.Slave is daemonkit.Slave
