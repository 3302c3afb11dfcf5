"""The attach path as two files that need nothing but a Python: a small script, and its modules in one bundle.

One file is placed and replaced at once, where a folder of modules would be a mixture of two versions for a moment. The
bundle has the modules compiled for one version of Python, and as sources for any other.
"""

from __future__ import annotations

import marshal
import os
import zlib
from importlib.util import MAGIC_NUMBER
from typing import NamedTuple

import podnet
from podnet.model.digest import sha1

__all__ = ["Bundle", "make", "packages"]

_ROOT = os.path.dirname(os.path.abspath(podnet.__file__))
_FOLDERS = ("cni", "ipam", "kernel", "model")

_SCRIPT = '''#!{python} -IS
"""The podnet CNI plugin {version} as a Python program; placed by 'podnet cni install', with its modules beside it."""

import gc
import marshal
import os
import sys

gc.disable()  # a call lives for moments; the server turns it on again


class Bundle:
    """Finds and loads the modules of the bundle."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDONLY)
        size = int.from_bytes(os.pread(self.file, 8, 0), "little")
        magic, self.modules = marshal.loads(os.pread(self.file, size, 8))
        self.start = 8 + size
        self.fits = magic == sys.modules["_frozen_importlib_external"].MAGIC_NUMBER

    def find_spec(self, name, path=None, target=None):
        found = self.modules.get(name)
        return found and type(sys.__spec__)(name, self, is_package=found[0])

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        _, at, size, source = self.modules[name]
        if self.fits:
            code = marshal.loads(os.pread(self.file, size, self.start + at))
        else:  # another Python than the one that was here
            import zlib

            text = zlib.decompress(os.pread(self.file, source, self.start + at + size))
            code = compile(text, name, "exec", dont_inherit=True)
        exec(code, module.__dict__)


here = os.path.realpath(__file__)
try:
    sys.meta_path.insert(0, Bundle(os.path.join(os.path.dirname(here), "{bundle}")))
except FileNotFoundError:
    # Upgraded between the start of this script and here: the new script has another bundle. Once only.
    with open(here, encoding="utf-8") as file:
        changed = "{bundle}" not in file.read()
    if changed:
        os.execv(here, [here, *sys.argv[1:]])
    raise

from podnet.cni.executable import main

code = main(sys.argv[1:])
sys.stderr.flush()
os._exit(code)  # taking the interpreter apart would take longer than half a call
'''


class Bundle(NamedTuple):
    """The script, and the bundle with its file name."""

    script: bytes
    name: str
    data: bytes


def packages() -> dict[str, tuple[bool, str]]:
    """The modules of the attach path: whether each is a package, and its file."""
    found = {"podnet": (True, os.path.join(_ROOT, "__init__.py")), "podnet.errors": (False, f"{_ROOT}/errors.py")}
    for folder in _FOLDERS:
        for place, folders, files in os.walk(os.path.join(_ROOT, folder)):
            folders[:] = sorted(each for each in folders if each != "__pycache__")
            prefix = ".".join(["podnet", *os.path.relpath(place, _ROOT).split(os.sep)])
            for each in sorted(files):
                if each == "__init__.py":
                    found[prefix] = (True, os.path.join(place, each))
                elif each.endswith(".py"):
                    found[f"{prefix}.{each.removesuffix('.py')}"] = (False, os.path.join(place, each))
    return found


def make(python: str) -> Bundle:
    """Bundle the attach path as it is here, for the interpreter at ``python``.

    The same sources give the same name, though not always the same bytes: marshal writes what it finds shared.
    """
    # For each module: whether it is a package; where its code is, and how long; how long its source is, which follows.
    modules: dict[str, tuple[bool, int, int, int]] = {}
    identity = sha1(MAGIC_NUMBER, usedforsecurity=False)
    parts: list[bytes] = []
    at = 0
    for name, (is_package, path) in packages().items():
        with open(path, "rb") as file:
            source = file.read()
        # Without docstrings, and with names of modules for files: what a traceback shows must not depend on the place.
        code = marshal.dumps(compile(source, name, "exec", dont_inherit=True, optimize=2))
        packed = zlib.compress(source)
        modules[name] = (is_package, at, len(code), len(packed))
        parts += [code, packed]
        at += len(code) + len(packed)
        identity.update(name.encode() + b"\0" + source + b"\0")
    index = marshal.dumps((MAGIC_NUMBER, modules))
    title = f"podnet-python-{identity.hexdigest()[:12]}.bundle"
    script = _SCRIPT.format(python=python, version=podnet.__version__, bundle=title)
    return Bundle(script.encode(), title, b"".join([len(index).to_bytes(8, "little"), index, *parts]))
