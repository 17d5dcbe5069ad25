"""Whether a Ray cluster takes the token that is here.

Ray itself would ask for 20 seconds, with a line each time, and then say that nobody answers.
"""

from __future__ import annotations

import os
from pathlib import Path

import grpc

ASK_SECONDS = 10
# Calls that change nothing: of a cluster's GCS, and of a server for clients (ray://).
_GCS, _CLIENT_SERVER = "/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/ClusterInfo"


def refusal(address: str) -> str:
    """Why the cluster at host:port or ray://host:port refuses the token that Ray would show it, and what to
    do; "" if it does not, or does not answer."""
    if not _is_refused(address, None):
        return ""
    token, place = _find()
    if token and not _is_refused(address, token):
        return ""
    which = f"{place} is another" if token else place
    return (
        f"wants its token, and {which}. Set RAY_AUTH_MODE=token, and the token as RAY_AUTH_TOKEN, as a file "
        "named by RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token"
    )


def _is_refused(address: str, token: str | None) -> bool:
    call = _CLIENT_SERVER if address.startswith("ray://") else _GCS
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address.removeprefix("ray://")) as channel:
        try:
            channel.unary_unary(call)(b"", timeout=ASK_SECONDS, metadata=metadata)
        except grpc.RpcError as e:
            return bool(e.code() == grpc.StatusCode.UNAUTHENTICATED)
        except ValueError:  # a token that cannot be sent
            return token is not None
    return False


def _find() -> tuple[str, str]:
    """The token that Ray shows, of the places where it looks the first one; or "", and why there is none."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return "", "RAY_AUTH_MODE is not token, so that none is shown"
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "the one in RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip(), f"the one in {path}"
    except (OSError, ValueError):
        return "", "there is none here"
