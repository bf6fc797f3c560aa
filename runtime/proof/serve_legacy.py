"""Run in a bento's own environment: serves a service of BentoML 1.0 and 1.1, runners included.

`serve_legacy.py DIRECTORY HANDLE` answers at the socket with that file descriptor. It is BentoML's
own way to serve such a service in one process: unless told otherwise, `Service.asgi_app` starts the
runners inside.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path


def main(directory: str, handle: int) -> None:
    """Serve the bento in a directory until the process is ended."""
    import bentoml
    import uvicorn

    # `bentoml serve` makes it, and the service's metrics need it.
    Path(os.environ["BENTOML_HOME"], "prometheus_multiproc_dir").mkdir(exist_ok=True)
    service = bentoml.load(directory, standalone_load=True)
    listener = socket.socket(fileno=handle)
    config = uvicorn.Config(service.asgi_app, log_level="warning", lifespan="on")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    del sys.path[0]  # the modules beside this file must not hide those of the environment
    main(sys.argv[1], int(sys.argv[2]))
