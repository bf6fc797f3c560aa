"""The MLflow server of a run: MLflow's own application, open to whoever knows a token.

Started by mlflow_server.tracking_server with a socket that listens already, so that nobody else can
come to stand on its port; a program on this machine would reach it there, whoever's it is.
"""

from __future__ import annotations

import hmac
import os
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

TOKEN_VARIABLE = "KFP_BENTO_TRACKING_TOKEN"  # noqa: S105 - its name
REFUSAL = b"""{"error_code": "UNAUTHENTICATED", "message": "This server belongs to a run."}"""
Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


def token_required(app: App, token: str) -> App:
    """Wrap an ASGI application so that it answers nobody without the bearer token."""
    expected = f"bearer {token}".encode()

    def may_enter(scope: Message) -> bool:
        given = [value for name, value in scope.get("headers", ()) if name == b"authorization"]
        kind, _, secret = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return hmac.compare_digest(kind.lower() + b" " + secret.strip(), expected)

    async def guarded(
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan" or may_enter(scope):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})

    return guarded


def main(database: str, artifacts: str, listener: int) -> None:
    """Serve until told to end.

    Args:
        database: SQLAlchemy's URL of the backend store.
        artifacts: Directory for artifacts, which clients reach through the server.
        listener: Descriptor of a socket that listens.
    """
    import mlflow.server
    import uvicorn
    from mlflow.server.handlers import initialize_backend_stores

    root = "mlflow-artifacts:/"
    os.environ[mlflow.server.BACKEND_STORE_URI_ENV_VAR] = database
    os.environ[mlflow.server.ARTIFACT_ROOT_ENV_VAR] = root
    os.environ[mlflow.server.ARTIFACTS_DESTINATION_ENV_VAR] = artifacts
    os.environ[mlflow.server.SERVE_ARTIFACTS_ENV_VAR] = "true"
    token = os.environ.pop(TOKEN_VARIABLE)
    initialize_backend_stores(database, database, root)
    from mlflow.server.fastapi_app import app

    server = uvicorn.Server(
        uvicorn.Config(token_required(app, token), log_level="info", access_log=True)
    )
    server.run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
