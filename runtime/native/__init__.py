"""The compiled part of the runtime, where there was a C compiler at installation: preprocessing, camera check, scores.

A frame on its way to a verdict passes some two hundred small calls of NumPy and OpenCV, each of which costs more than
what it computes. The functions of the ``.c`` files (here, in ``health/`` and in ``handover/c/``) do the same in one
call each. Nothing depends on them: whoever asks `library` gets None where they are missing, and computes in Python.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from types import ModuleType

SWITCH = "FRAMEGATE_NATIVE"
"""Environment variable: 0 leaves the compiled code aside."""
FILE = "_native.so"
"""The library's name beside this module: no version of Python is in it, since nothing of Python is in the library."""
_VERSION = 9
_P, _I, _L, _D, _F = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_double, ctypes.c_float
_SIGNATURES = {
    "framegate_count_rows": (None, [_P, _L, _I, _I, _D, *[_P] * 5]),
    "framegate_compare_rows": (None, [_P, *[_I] * 7, *[_P] * 9]),
    "framegate_content": (None, [_P, _I, _I, _P]),
    "framegate_healthy": (_I, [_P, _P]),
    "framegate_beside_size": (_I, []),
    "framegate_scores": (_I, [_P, _I, _D, _P]),
    "framegate_answer": (_I, [_P, _D]),
    "framegate_rows": (None, [_P, _I, _D]),
    "framegate_preprocess": (None, [_P, _P, _L, _I, _I]),
    "framegate_verdicts_open": (_P, [_P, _P, _I]),
    "framegate_verdicts_chunk": (_I, [_P, ctypes.c_char_p, _L]),
    "framegate_verdicts_look": (None, [_P, _P, _P]),
    "framegate_verdicts_close": (None, [_P]),
    "framegate_shift": (_D, [_P, _P, _P, _F, _P, _P, _P, _D, _I, _I, _P]),
}


_SHORT = {
    "framegate_crc32_autosar": (ctypes.c_uint32, [ctypes.c_char_p, ctypes.c_size_t]),
    "framegate_crc32_of_message": (ctypes.c_uint32, [ctypes.c_char_p, ctypes.c_size_t]),
    "framegate_handover_size": (_I, []),
    "framegate_handover_open": (_I, [_P, _P, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p]),
    "framegate_handover_feed": (_I, [_P, ctypes.c_char_p, ctypes.c_size_t, _L, _P]),
    "framegate_handover_release": (_I, [_P, _L, _P]),
    "framegate_handover_restart": (None, [_P, _P]),
}
"""Done within about a microsecond; see `short_calls`."""
_BESIDE = {
    "framegate_beside_open": (_I, [_P]),
    "framegate_beside_run": (None, [_P]),
    "framegate_beside_stop": (None, [_P]),
    "framegate_beside_start": (None, [_P, _P, _P, _L, _P, _I, _I, _P]),
    "framegate_beside_finish": (_I, [_P]),
    "framegate_beside_attend": (_I, [_P, _L]),
    "framegate_beside_done": (_I, [_P]),
    "framegate_beside_good": (_I, [_P, _D]),
    "framegate_preprocess_share": (None, [_P, _P, _P, _L, _I, _I]),
    "framegate_preprocess_help": (None, [_P]),
    "framegate_preprocess_finish": (None, [_P]),
}
"""Only where `framegate_beside_size` is not 0."""
_FAST_PATH = (
    "beside_start",
    "beside_finish",
    "beside_done",
    "beside_good",
    "beside_attend",
    "preprocess_share",
    "preprocess_finish",
    "preprocess",
    "answer",
)
"""What fast_path.c uses, in its order."""


@cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """The compiled functions and their file's name; or None, and why they are not used."""
    if os.environ.get(SWITCH) == "0":
        return None, f"switched off by {SWITCH}=0"
    path = Path(__file__).parent / FILE
    if not path.is_file():
        return None, "not compiled; install framegate again where there is a C compiler"
    try:
        code = ctypes.CDLL(str(path))
        version = int(code.framegate_version())
        signatures = _SIGNATURES | _SHORT | (_BESIDE if code.framegate_beside_size() else {})
        for name, (result, arguments) in signatures.items():
            function = getattr(code, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        return None, f"{FILE} cannot be used ({error}); install framegate again"
    if version != _VERSION:
        return None, f"{FILE} has version {version}, expected {_VERSION}; install framegate again"
    return code, FILE


@cache
def short_calls() -> ctypes.PyDLL | None:
    """The functions that are done within a microsecond, without letting go of the interpreter for so short a time.

    Whoever lets go must wait until another thread gives it back. A call is never interrupted by another thread of this
    process. None where there is no compiled code.
    """
    if library()[0] is None:
        return None
    code = ctypes.PyDLL(str(Path(__file__).parent / FILE))
    for name, (result, arguments) in _SHORT.items():
        function = getattr(code, name)
        function.restype, function.argtypes = result, arguments
    return code


@cache
def fast_path_module() -> ModuleType | None:
    """The module of fast_path.c, ready to be used; None where there is none, or not for this Python."""
    code, _ = library()
    if code is None or not code.framegate_beside_size():
        return None
    try:
        from framegate.runtime.native import _fast_path  # type: ignore[attr-defined]

        functions = [f"framegate_{name}" for name in _FAST_PATH]
        _fast_path.bind(_VERSION, *(ctypes.cast(getattr(code, name), ctypes.c_void_p).value for name in functions))
    except (ImportError, TypeError, ValueError):
        return None
    module: ModuleType = _fast_path
    return module
