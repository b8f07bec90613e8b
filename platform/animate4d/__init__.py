"""animate4d: animate any static 3D model from a sentence, at scale."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from animate4d.serve.client import Client as Client

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Client":
        from animate4d.serve.client import Client

        return Client
    raise AttributeError(f"module 'animate4d' has no attribute {name!r}")
