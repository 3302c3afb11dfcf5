"""What a case is about: the plugin under test, containers, networks, and the attachments between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podnet.conform.bench import WORK_DIR
from podnet.conform.model import KNOWN_VERSIONS
from podnet.kernel import netns

if TYPE_CHECKING:
    from podnet.conform.profiles import Profile

__all__ = ["UPLINK", "Attachment", "Network", "Sandbox", "Subject"]

UPLINK = "uplink0"


@dataclass(frozen=True, slots=True)
class Subject:
    """The plugin under test and how it is judged."""

    path: str
    profile: Profile
    versions: tuple[str, ...]
    cni_path: tuple[str, ...]
    timeout: float = 30.0
    limit: str = KNOWN_VERSIONS[-1]  # what is newer is not judged: a delegated plugin may not know it
    adds: bool = True  # whether a plain ADD succeeds: where it does not, nothing that follows from an ADD is judged

    @property
    def newest(self) -> str:
        return self.versions[-1]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A container: its ID and its network namespace."""

    id: str
    namespace: str

    @property
    def path(self) -> str:
        return netns.path_of(self.namespace)


@dataclass(frozen=True, slots=True)
class Network:
    """A network: its name and what its configuration's placeholders become."""

    name: str
    number: int
    prefix: int = 24

    @property
    def values(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "subnet": f"10.88.{self.number}.0/{self.prefix}",
            "gateway": f"10.88.{self.number}.1",
            "dataDir": f"{WORK_DIR}/data",
            "bridge": f"conform{self.number}",
            "uplink": UPLINK,
        }


@dataclass(slots=True)
class Attachment:
    """A container's interface in a network; ``before`` is the prevResult that a chained plugin starts from."""

    sandbox: Sandbox
    ifname: str
    network: Network
    number: int
    before: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    runtime_config: dict[str, Any] = field(default_factory=dict)
