"""Names under which others on the network may look for a container: written down for whoever answers for names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podnet.cni.plugin.part import Data, Part, own_ips

if TYPE_CHECKING:
    from podnet.cni.plugin.call import Call
    from podnet.cni.spec.result import Result

__all__ = ["Aliases"]


class Aliases(Part):
    """``runtimeConfig.aliases`` (CONVENTIONS.md): the data are the ``names`` and the ``addresses`` that they mean.

    Nothing of it is in the kernel, and a result has no place for it.
    """

    name = "aliases"

    def wanted(self, call: Call) -> bool:
        return bool(call.config.runtime.aliases)

    def data(self, call: Call, result: Result) -> Data:
        addresses = [ip.address.partition("/")[0] for ip in own_ips(call, result)]
        return {"names": list(call.config.runtime.aliases), "addresses": addresses}
