"""The compiled operator's machine code: from the cache folder, or compiled now and kept there.

Reading it takes a tenth of a second, importing numba alone half of one: so numba is imported only to compile.
A file belongs to one processor model, one version of the sources and of the compiler. Files are replaced in one step,
so processes may compile at the same time; where the folder cannot be written, each process compiles for itself.
"""

import ctypes
import hashlib
import uuid
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.storage.cache_folder import cache_folder

__all__ = ["Entries", "entries", "is_kept"]

SOURCES = ("__init__.py", "arithmetic.py", "entry.py", "machine_code.py")

NAMES = ("set_up", "run")

ERROR_HANDLERS = (
    "numba_do_raise",
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
)
"""What numba's entries call if the function inside fails, which it cannot: see `pipelines.dali.fused.arithmetic`."""

KNOWN = frozenset({*ERROR_HANDLERS, "memcpy", "memmove", "memset", "sin"})
"""What the compiled code may call, with LLVM's own and Python's: a call that cannot be resolved would crash."""

DIGEST = hashlib.sha256().digest_size


class Entries(NamedTuple):
    """Addresses of the compiled functions.

    Attributes:
        set_up: Says how large outputs are.
        run: Makes one crop.
    """

    set_up: int
    run: int


@cache
def entries() -> Entries | str:
    """Return the compiled functions, or why there are none; they are compiled if they are not in the cache."""
    try:
        path = _path()
        code = _read(path)
        if code is None:
            code = _compile()
            with suppress(OSError):  # a folder that cannot be written costs only time
                _write(path, code)
        return _load(code)
    except Exception as error:  # noqa: BLE001 - whatever numba or LLVM cannot do here is the answer
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def is_kept() -> bool:
    """Return whether `entries` has no need to compile."""
    try:
        return entries.cache_info().currsize > 0 or _read(_path()) is not None
    except Exception:  # noqa: BLE001 - `entries` will say what is wrong
        return False


def _path() -> Path:
    import llvmlite.binding as llvm  # noqa: PLC0415

    folder = Path(__file__).parent
    parts = [(folder / name).read_bytes() for name in SOURCES]
    machine = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    parts += [text.encode() for text in (version("numba"), version("llvmlite"), *machine)]
    return cache_folder() / "operator" / f"{hashlib.sha256(b'|'.join(parts)).hexdigest()[:24]}.o"


def _read(path: Path) -> bytes | None:
    """Return the machine code of a file, or None if there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:DIGEST], content[DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(hashlib.sha256(code).digest() + code)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _compile() -> bytes:
    """Return the functions' machine code for this processor, as an object file."""
    import llvmlite.binding as llvm  # noqa: PLC0415 - where it is broken, DALI's operators take over

    from pipelines.dali.fused.entry import compile_entries  # noqa: PLC0415 - imports numba

    linked = llvm.parse_assembly("")
    for name, (text, compiled_name) in compile_entries().items():
        module = llvm.parse_assembly(text)
        module.get_function(compiled_name).name = name
        linked.link_in(module)
    unknown = {one.name for one in linked.functions if one.is_declaration} - KNOWN
    if unknown := {name for name in unknown if not name.startswith(("llvm.", "Py"))}:
        raise RuntimeError(f"the compiled code calls {', '.join(sorted(unknown))}, which is not known")
    return bytes(_target().emit_object(linked))


def _load(code: bytes) -> Entries:
    import llvmlite.binding as llvm  # noqa: PLC0415

    for name in ERROR_HANDLERS:
        if llvm.address_of_symbol(name) is None:  # without numba, which defines them
            llvm.add_symbol(name, ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _KEPT.append(engine)
    return Entries(*map(engine.get_function_address, NAMES))


_KEPT: list[Any] = []
"""Code lives as long as the engine that loaded it."""


def _target() -> Any:
    """Return this processor as a target; an engine takes it over."""
    import llvmlite.binding as llvm  # noqa: PLC0415

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
        jit=True,
    )
