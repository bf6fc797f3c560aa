"""What it means that a model names something: nothing, code by design, unknown, or danger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfp_bento.runtime.scan.allowlist import REFERENCED_ONLY, is_listed
from kfp_bento.runtime.scan.finding import Severity
from kfp_bento.runtime.scan.values import words

if TYPE_CHECKING:
    from kfp_bento.runtime.scan.values import Name

_WORDS = {
    "program": "It can start programs.",
    "code": "It can run any code, or get at anything in the process.",
    "files": "It can read, write or delete files.",
    "network": "It can reach the network.",
    "loader": "It loads another pickle, which nobody looked at.",
    "memory": "It can change the memory of the process.",
}
_MODULES: dict[str, str] = {
    **dict.fromkeys(
        words(
            "os posix nt subprocess _posixsubprocess pty commands popen2 multiprocessing "
            "concurrent _winapi signal resource"
        ),
        "program",
    ),
    **dict.fromkeys(
        words(
            "sys importlib imp runpy code codeop pdb bdb trace timeit profile cProfile doctest "
            "unittest test idlelib lib2to3 pydoc pkgutil zipimport ensurepip venv pip setuptools "
            "distutils site inspect gc ast types operator _operator dis asyncio threading _thread "
            "_aix_support _osx_support _pyrepl sympy IPython jinja2 torch.hub torch.fx "
            "torch._dynamo torch._inductor torch.utils torch.distributed torch.package torch.jit "
            "torch.ops torch.classes numpy.testing numpy.f2py numpy.distutils numpy.lib "
            "numpy.__builtins__ numpy.ctypeslib scipy.stats pandas.core.computation pandas.eval "
            "patsy.eval sched sklearn.utils._testing antigravity this bentoml kfp_bento"
        ),
        "code",
    ),
    **dict.fromkeys(
        words(
            "io _io shutil tempfile glob fileinput zipfile tarfile gzip bz2 lzma sqlite3 dbm mmap "
            "logging pathlib posixpath ntpath linecache configparser csv sklearn.datasets "
            "numpy.memmap pandas.io"
        ),
        "files",
    ),
    **dict.fromkeys(
        words(
            "socket _socket ssl http urllib urllib3 requests httpx aiohttp httplib urllib2 ftplib "
            "smtplib poplib imaplib nntplib telnetlib xmlrpc webbrowser socketserver wsgiref "
            "paramiko boto3 botocore fsspec"
        ),
        "network",
    ),
    **dict.fromkeys(
        words(
            "pickle _pickle cPickle pickletools marshal shelve joblib dill cloudpickle "
            "torch.serialization torch.load yaml jsonpickle numpy.load pandas.read_pickle"
        ),
        "loader",
    ),
    **dict.fromkeys(words("ctypes _ctypes cffi _cffi_backend"), "memory"),
}
_DANGEROUS_NAMES: dict[str, str] = {
    **dict.fromkeys(
        (
            *(
                f"builtins.{name}"
                for name in (
                    *("eval", "exec", "compile", "__import__", "getattr", "setattr", "delattr"),
                    *(
                        "globals",
                        "locals",
                        "vars",
                        "breakpoint",
                        "input",
                        "__build_class__",
                        "super",
                    ),
                    *("apply", "execfile", "reload", "__loader__", "__spec__", "help"),
                )
            ),
            *("functools.reduce", "functools.partialmethod", "itertools.starmap"),
            *("copyreg.add_extension", "copyreg.pickle", "codecs.open"),
            *(f"numpy.{core}._ufunc_reconstruct" for core in ("core", "_core")),
            "numpy.core._multiarray_umath._ufunc_reconstruct",
        ),
        "code",
    ),
    **dict.fromkeys(("builtins.open", "builtins.file", "numpy.fromfile", "numpy.save"), "files"),
}
_DUNDERS = words(
    "__builtins__ __import__ __globals__ __subclasses__ __loader__ __dict__ __class__ "
    "__getattribute__ __reduce__ __code__ __mro__ __bases__ __base__ __init__ __spec__"
)
_CODE_ADVICE = (
    "Load it only if you know who logged it; allow it by this name once you have read it."
)
_CARRIERS = ("cloudpickle", "dill")


def carries_code(name: Name) -> bool:
    """Tell whether a name makes functions and classes out of code that travels in the pickle."""
    top, _, rest = name.module.partition(".")
    return top in _CARRIERS and bool(rest)


def judge(
    name: Name, called: bool, lists: tuple[str, ...], own_modules: frozenset[str]
) -> tuple[Severity, str, str] | None:
    """Judge what a pickle imports.

    Args:
        name: What it imports.
        called: Whether it calls it.
        lists: The lists that count for the model.
        own_modules: The modules that lie in the model's own folders.

    Returns:
        Severity, why, and what to do; None for what is known to be harmless.
    """
    text = str(name)
    if is_listed(name, lists) and not (called and text in REFERENCED_ONLY):
        return None
    if carries_code(name):
        why = "It holds functions or classes as code (cloudpickle), which loading brings to life."
        return Severity.CODE, why, _CODE_ADVICE
    if name.module.partition(".")[0] in own_modules:
        why = "It is of the model's own code folder, whose code runs when it is loaded."
        return Severity.CODE, why, _CODE_ADVICE
    if why := _danger(name):
        return Severity.DANGEROUS, why, "Do not load it. Ask who logged it, and log it anew."
    why = "It is on no list of names that are known to be harmless for models of these flavors."
    if called and text in REFERENCED_ONLY:
        why = "It is harmless where it is named only, but this model calls it."
    advice = (
        "Look what it does when it is called with any arguments; allow it by this name, or not."
    )
    return Severity.UNKNOWN, why, advice


def _danger(name: Name) -> str:
    text = str(name)
    parts = text.split(".")
    if text in _DANGEROUS_NAMES:
        return _WORDS[_DANGEROUS_NAMES[text]]
    if _DUNDERS.intersection(parts):
        return _WORDS["code"]
    for length in range(len(parts), 0, -1):
        if kind := _MODULES.get(".".join(parts[:length])):
            return _WORDS[kind]
    # A name with dots goes through what a module imported: `sklearn.utils` and `os.system`.
    inner = name.name.split(".")
    return next((_WORDS[_MODULES[part]] for part in inner[:-1] if part in _MODULES), "")
