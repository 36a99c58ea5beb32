"""How uvicorn serves the peers that are ASGI applications: as fast as it can."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

from .computing import start_if_wanted


def serve(app: Any) -> None:
    """Serve on the port that the command line names."""
    start_if_wanted()
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        # The default of 5 s would close the idle connections during longer runs.
        timeout_keep_alive=120,
    )
