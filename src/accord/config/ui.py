"""What `accord ui` takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class UiOptions:
    """`accord ui`."""

    folder: str = "runs"
    """Folder whose runs and label projects are shown."""
    host: str = "127.0.0.1"
    """Address to listen on; another than this machine's own needs TLS, and lets in whoever has the link with the token."""
    port: int = 8322
    """Port to listen on; 0 takes a free one."""
    tls_cert: str | None = None
    """Certificate file, for people on other machines. None: plain HTTP, on this machine alone."""
    tls_key: str | None = None
    """Its key file."""
    behind: str | None = None
    """https:// address of a proxy or tunnel with TLS before this server. None: there is none."""
    open_browser: bool = True
    """True opens the page. False prints its address alone."""
