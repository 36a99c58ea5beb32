from __future__ import annotations

import sys
from subprocess import run


def test_facts_need_no_extra() -> None:
    code = (
        "import sys, daemonkit.monitoring.metric_facts; "
        "assert not any(name.startswith('prometheus_client') for name in sys.modules)"
    )
    run([sys.executable, "-c", code], check=True, timeout=60)
