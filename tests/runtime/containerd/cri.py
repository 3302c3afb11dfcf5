"""A kubelet's side of the container runtime interface: calls over a Unix socket, with plain data in and out.

Only the messages and fields that the tests use are described here, by their numbers in ``runtime.v1``.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

__all__ = ["CRI", "CRIError"]

CRIError = grpc.RpcError

# name: {field: (number, type)}; "[x]" is a list of x, "map" one from string to string, a capital another message.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "PodSandboxMetadata": {
        "name": (1, "string"), "uid": (2, "string"), "namespace": (3, "string"), "attempt": (4, "uint32"),
    },
    "DNSConfig": {"servers": (1, "[string]"), "searches": (2, "[string]"), "options": (3, "[string]")},
    "PortMapping": {
        "protocol": (1, "int32"), "container_port": (2, "int32"), "host_port": (3, "int32"), "host_ip": (4, "string"),
    },
    "LinuxPodSandboxConfig": {"cgroup_parent": (1, "string")},
    "PodSandboxConfig": {
        "metadata": (1, "PodSandboxMetadata"), "hostname": (2, "string"), "log_directory": (3, "string"),
        "dns_config": (4, "DNSConfig"), "port_mappings": (5, "[PortMapping]"), "labels": (6, "map"),
        "annotations": (7, "map"), "linux": (8, "LinuxPodSandboxConfig"),
    },
    "RunPodSandboxRequest": {"config": (1, "PodSandboxConfig")},
    "RunPodSandboxResponse": {"pod_sandbox_id": (1, "string")},
    "StopPodSandboxRequest": {"pod_sandbox_id": (1, "string")},
    "StopPodSandboxResponse": {},
    "RemovePodSandboxRequest": {"pod_sandbox_id": (1, "string")},
    "RemovePodSandboxResponse": {},
    "PodIP": {"ip": (1, "string")},
    "PodSandboxNetworkStatus": {"ip": (1, "string"), "additional_ips": (2, "[PodIP]")},
    "PodSandboxStatus": {
        "id": (1, "string"), "state": (3, "int32"), "network": (5, "PodSandboxNetworkStatus"), "labels": (7, "map"),
    },
    "PodSandboxStatusRequest": {"pod_sandbox_id": (1, "string"), "verbose": (2, "bool")},
    "PodSandboxStatusResponse": {"status": (1, "PodSandboxStatus"), "info": (2, "map")},
    "PodSandbox": {"id": (1, "string"), "metadata": (2, "PodSandboxMetadata"), "state": (3, "int32")},
    "ListPodSandboxRequest": {},
    "ListPodSandboxResponse": {"items": (1, "[PodSandbox]")},
    "ContainerMetadata": {"name": (1, "string"), "attempt": (2, "uint32")},
    "ImageSpec": {"image": (1, "string")},
    "ContainerConfig": {
        "metadata": (1, "ContainerMetadata"), "image": (2, "ImageSpec"), "command": (3, "[string]"),
        "args": (4, "[string]"), "log_path": (11, "string"),
    },
    "CreateContainerRequest": {
        "pod_sandbox_id": (1, "string"), "config": (2, "ContainerConfig"), "sandbox_config": (3, "PodSandboxConfig"),
    },
    "CreateContainerResponse": {"container_id": (1, "string")},
    "StartContainerRequest": {"container_id": (1, "string")},
    "StartContainerResponse": {},
    "ExecSyncRequest": {"container_id": (1, "string"), "cmd": (2, "[string]"), "timeout": (3, "int64")},
    "ExecSyncResponse": {"stdout": (1, "bytes"), "stderr": (2, "bytes"), "exit_code": (3, "int32")},
    "RuntimeCondition": {
        "type": (1, "string"), "status": (2, "bool"), "reason": (3, "string"), "message": (4, "string"),
    },
    "RuntimeStatus": {"conditions": (1, "[RuntimeCondition]")},
    "StatusRequest": {"verbose": (1, "bool")},
    "StatusResponse": {"status": (1, "RuntimeStatus"), "info": (2, "map")},
}  # fmt: skip


def _described() -> descriptor_pool.DescriptorPool:
    """The messages as protobuf wants them."""
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {name: getattr(kinds, f"TYPE_{name.upper()}") for name in
               ("string", "bytes", "bool", "int32", "int64", "uint32")}  # fmt: skip
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package="runtime.v1", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            made = message.field.add(name=field, number=number, label=kinds.LABEL_OPTIONAL)
            if kind.startswith("["):
                made.label, kind = kinds.LABEL_REPEATED, kind[1:-1]  # noqa: PLW2901 - what is in the list
            if kind == "map":
                entry = message.nested_type.add(name="".join(part.title() for part in field.split("_")) + "Entry")
                entry.options.map_entry = True
                for index, key in enumerate(("key", "value"), 1):
                    entry.field.add(name=key, number=index, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
                made.label, kind = kinds.LABEL_REPEATED, f"{name}.{entry.name}"  # noqa: PLW2901
            if kind in scalars:
                made.type = scalars[kind]
            else:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".runtime.v1.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


class CRI:
    """The runtime behind a socket."""

    def __init__(self, socket: str) -> None:
        self._pool = _described()
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def __enter__(self) -> CRI:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def call(self, verb: str, timeout: float = 120.0, **fields: Any) -> dict[str, Any]:
        """One call. Raises ``CRIError`` with what the runtime answered."""
        request = json_format.ParseDict(fields, self._message(f"{verb}Request"))
        ask = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{verb}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._message(f"{verb}Response").FromString,
        )
        answer = ask(request, timeout=timeout, wait_for_ready=True)
        found: dict[str, Any] = json_format.MessageToDict(answer, preserving_proto_field_name=True)
        return found

    def _message(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"runtime.v1.{name}"))()
