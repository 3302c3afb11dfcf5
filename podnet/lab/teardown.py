"""The lab's verb that removes: down.

Apart from ``converge`` because it must be quick: no topology, no SQLite is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.errors import PodnetError
from podnet.kernel.objects import Netns, NftTable
from podnet.kernel.schedule import Op
from podnet.lab import machine, record
from podnet.lab.attacher import Attacher
from podnet.lab.openfiles import raise_open_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from podnet.kernel.interface import Kernel
    from podnet.lab.record import Record

__all__ = ["down"]


def down(
    name: str, kernel: Kernel, stop_processes: Callable[[], None], detach: Callable[[], object] | None = None
) -> bool:
    """Remove a lab and all that it changed; ``False`` where there is none.

    ``detach`` lets CNI plugins take back what they gave; by default nobody hears their complaints.
    Works from the record alone, whatever has become of the topology file, and as often as it is called.
    """
    with record.locked(name):
        entry = record.load(name)
        if entry is None:
            return False
        stop_processes()
        (detach or Attacher(record.directory(name)).detach_all)()
        names = set(entry.namespaces) & kernel.namespaces()
        raise_open_files(len(names))
        # A namespace takes all that is in it along.
        kernel.apply([*_in_machine(entry, kernel), *(Op("delete", Netns(each)) for each in sorted(names))])
        left = names & kernel.namespaces()
        if left:
            msg = f"the namespaces {', '.join(sorted(left))} could not be removed"
            raise PodnetError(msg)
        machine.give_back(name)
        record.remove(name)
        return True


def _in_machine(entry: Record, kernel: Kernel) -> list[Op]:
    """The deletion of what the lab has in the machine's own namespace; sysctls are given back elsewhere."""
    if all(key[0] == "sysctl" for key in entry.machine_keys):
        return []
    from podnet.kernel.diff import diff
    from podnet.kernel.schedule import schedule
    from podnet.lab.drift import own

    keys = {tuple(key) for key in entry.machine_keys}
    tables = [NftTable("", key[2], key[3], "") for key in keys if key[0] == "nft"]
    return schedule(diff({}, own(kernel.observe([""], (), tables), keys, {}), entry.group))
