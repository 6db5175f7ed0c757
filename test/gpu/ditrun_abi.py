"""kernels/include/ditrun.h for Python: what the generated twin says, and a Module whose methods raise with the module's sentence."""
import ctypes
from ctypes import c_char_p, c_uint64

from ditrun_abi_generated import *
from ditrun_abi_generated import RETURNS, SIGNATURES


class Module:
    """The functions named, of a module that may have only those; all, if none are named."""

    def __init__(self, path, names=tuple(SIGNATURES)):
        self.lib = ctypes.CDLL(path)
        self.lib.ditrun_last_error.restype = c_char_p
        self.lib.ditrun_module.restype = c_char_p
        for name in names:
            getattr(self.lib, f"ditrun_{name}").argtypes = SIGNATURES[name]

    def memory_used(self):
        now, peak = c_uint64(), c_uint64()
        self.lib.ditrun_memory_used(ctypes.byref(now), ctypes.byref(peak))
        return now.value, peak.value

    def __getattr__(self, name):
        if name not in SIGNATURES:
            raise AttributeError(name)
        function = getattr(self.lib, f"ditrun_{name}")

        def call(*arguments):
            value = c_uint64()
            status = function(*arguments, ctypes.byref(value)) if name in RETURNS else function(*arguments)
            if status != 0:
                raise RuntimeError(f"ditrun_{name} returned {status}: {self.lib.ditrun_last_error().decode()}")
            return value.value if name in RETURNS else None
        return call
