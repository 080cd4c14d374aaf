"""Lay out Windows's Python: `windows.py WORK TARGET CORE` (see `.ci/windows`, which calls it).

Args:
    WORK: has the wheel with the interpreter's DLLs; gets `python3.def`.
    TARGET: where Python is to be.
    CORE: the name of the interpreter's DLL, without its ending.

"""

from __future__ import annotations

import shutil
import struct
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

IN_WHEEL = "deploy_libs"
NOT_WINDOWS = ("site-packages", "dist-packages", "test", "lib-dynload", "config-3*", "__pycache__")


def main(work: Path, target: Path, core: str) -> None:
    """Lay it out."""
    libraries = target / "DLLs"
    libraries.mkdir(parents=True, exist_ok=True)
    [path] = work.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            file = PurePosixPath(name)
            # The api-ms-* ones are Wine's to bring.
            if (
                file.parts[0] == IN_WHEEL
                and file.suffix.lower() in (".dll", ".pyd")
                and not file.name.startswith("api-ms-")
            ):
                (libraries / file.name).write_bytes(wheel.read(name))
    for name in (f"{core}.dll", "VCRUNTIME140.dll"):
        (libraries / name).replace(target / name)
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        target / "Lib",
        ignore=shutil.ignore_patterns(*NOT_WINDOWS, "*.so"),
        dirs_exist_ok=True,
    )
    forwards = "".join(
        f"    {name} = {core}.{name}\n" for name in exported((target / f"{core}.dll").read_bytes())
    )
    (work / "python3.def").write_text(f"LIBRARY python3\nEXPORTS\n{forwards}")


def exported(dll: bytes) -> Iterator[str]:
    """Yield the names that a DLL exports (PE format, 64 bits)."""
    (header,) = struct.unpack_from("<I", dll, 0x3C)
    _, sections, optional_size = struct.unpack_from("<HH12xH", dll, header + 4)
    optional = header + 24
    table = [
        struct.unpack_from("<8x4I", dll, optional + optional_size + 40 * number)
        for number in range(sections)
    ]

    def at(address: int) -> int:
        """Return where in the file something is that has an address in memory."""
        for size, start, stored, where in table:
            if start <= address < start + max(size, stored):
                return address - start + where
        raise ValueError(f"no section has {address:#x}")

    directory = at(struct.unpack_from("<I", dll, optional + 112)[0])
    (count,) = struct.unpack_from("<I", dll, directory + 24)
    names = at(struct.unpack_from("<I", dll, directory + 32)[0])
    for address in struct.unpack_from(f"<{count}I", dll, names):
        begin = at(address)
        yield dll[begin : dll.index(b"\0", begin)].decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
