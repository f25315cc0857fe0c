from __future__ import annotations

import ctypes

import numpy as np

_library = ctypes.CDLL("libcuda.so.1")


class Error(Exception):
    pass


def _call(name, *arguments):
    result = getattr(_library, name)(*arguments)
    if result:
        text = ctypes.c_char_p()
        _library.cuGetErrorString(result, ctypes.byref(text))
        raise Error(f"{name.removesuffix('_v2')} failed: {(text.value or b'').decode()}")


def _handle(name, *arguments):
    out = ctypes.c_void_p()
    _call(name, ctypes.byref(out), *arguments)
    return out.value


def init():
    _call("cuInit", 0)


class Context:
    def __init__(self, handle, ordinal):
        self.handle, self._ordinal = handle, ordinal

    def push(self):
        _call("cuCtxPushCurrent_v2", ctypes.c_void_p(self.handle))

    @staticmethod
    def pop():
        _call("cuCtxPopCurrent_v2", None)

    def detach(self):
        _call("cuDevicePrimaryCtxRelease_v2", self._ordinal)


class Device:
    def __init__(self, ordinal):
        self._ordinal = ordinal

    def name(self):
        return "stub"

    def total_memory(self):
        return 1 << 30

    def retain_primary_context(self):
        return Context(_handle("cuDevicePrimaryCtxRetain", self._ordinal), self._ordinal)


class DeviceAllocation:
    def __init__(self, pointer):
        self._pointer = pointer

    def __int__(self):
        return self._pointer

    def free(self):
        _call("cuMemFree_v2", ctypes.c_void_p(self._pointer))


def mem_alloc(nbytes):
    return DeviceAllocation(_handle("cuMemAlloc_v2", ctypes.c_size_t(nbytes)))


class _HostAllocation:
    """Stands for the C++ object that PyCUDA hangs on an array as its base."""

    def __init__(self, nbytes, flags):
        self._address = _handle("cuMemHostAlloc", ctypes.c_size_t(nbytes), flags)
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (self._address, False), "version": 3}

    def get_device_pointer(self):
        return _handle("cuMemHostGetDevicePointer_v2", ctypes.c_void_p(self._address), 0)

    def free(self):
        _call("cuMemFreeHost", ctypes.c_void_p(self._address))


def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
    array = np.asarray(_HostAllocation(shape, mem_flags))
    assert array.dtype == dtype
    return array
