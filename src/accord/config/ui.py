"""What `accord ui` takes."""

from __future__ import annotations

from dataclasses import dataclass

from accord.errors import ConfigError


@dataclass
class UiOptions:
    """`accord ui`."""

    folder: str = "runs"
    """Folder whose runs and label projects are shown."""
    chat: str | None = None
    """Model to open the chat with at once: a name, a folder or a run. None loads none before somebody opens one on the page."""
    learn: bool = False
    """True trains the model of --chat on each answer that you prefer. False only talks."""
    compare: list[str] | None = None
    """Two to four models to compare blind at once. None loads none before somebody opens some on the page."""
    votes: str | None = None
    """Label project where votes of comparisons go, made when the first is opened. None is comparisons in the folder."""
    host: str = "127.0.0.1"
    """Address to listen on; another than this machine's own needs TLS, and lets in whoever has the link with the token, to look."""
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

    def __post_init__(self) -> None:
        if self.chat and self.compare:
            raise ConfigError("accord ui opens a chat or a comparison at the start, not both: leave --chat or --compare out.")
        if self.learn and not self.chat:
            raise ConfigError("accord ui --learn needs the model that learns: --chat MODEL. accord chat --learn opens the starter model.")
