"""Reads pickles of plain data and NumPy arrays of numbers: the one place where the library touches that format.

RICH publishes its fits as pickles and as nothing else. A pickle is a program: it names functions and says what to call
them with. Here no code can run: nothing that a file names is looked up or imported. The few names that arrays of NumPy
need (:data:`ADMITTED`) stand for functions of this module, which make arrays of numbers out of bytes and nothing else;
not even NumPy's own constructors are called for a file. Any other name ends the reading.
"""

import copyreg
import io
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

_NUMBERS = re.compile(r"[biufc]\d{1,2}")
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def load_pickled_arrays(path: str | os.PathLike[str]) -> Any:
    """What a pickle (any protocol, of Python 2 or 3) holds: numbers, texts, arrays of numbers, and containers of these.

    Containers are dict, list, tuple, set and frozenset; NumPy's scalars come out as arrays without axes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged or holds anything else (a function, a class, an array of objects), named.
    """
    data = Path(path).read_bytes()
    # Classes cached by other readers of pickles in this process would be handed out without asking find_class.
    copyreg.clear_extension_cache()
    try:
        return _unwrap(_Unpickler(io.BytesIO(data), encoding="latin1").load(), {})
    except Exception as error:  # a damaged pickle raises whatever it likes
        raise ValueError(
            f"{path} is no pickle of plain data and arrays of numbers, and nothing else is read from pickles: "
            f"{str(error) or type(error).__name__}"
        ) from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> "_Function":
        if (module, name) not in ADMITTED:
            _refuse(f"it names {module}.{name}")
        return ADMITTED[module, name]


def _refuse(reason: str) -> NoReturn:
    raise pickle.UnpicklingError(reason)


class _Function:
    """Something a pickle may call; nothing can be set on it, and it is no class that could be instantiated."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        _refuse("it sets the state of a function")


class _DType:
    """A type of number, as a file describes it."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *_flags: Any) -> None:
        if not (isinstance(name, str) and _NUMBERS.fullmatch(name)):
            _refuse(f"it holds an array of type {name!r}, which are no numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags)
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            _refuse("it holds an array whose elements are no plain numbers")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array that is being read; a real one takes its place once the file is through."""

    __slots__ = ("value",)

    def __setstate__(self, state: Any) -> None:
        # (version, shape, type, whether in Fortran's order, bytes)
        if not isinstance(state, tuple) or len(state) != 5:
            _refuse("it holds an array in a form that NumPy does not write")
        _, shape, dtype, fortran, raw = state
        self.value = _numbers(raw, dtype, shape, "F" if fortran else "C")


def _numbers(raw: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    if isinstance(raw, str):  # bytes of Python 2
        raw = raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, _DType):
        _refuse("it holds an array that is not made of bytes")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        _refuse(f"it holds an array of shape {shape!r}")
    # A copy: writable, and in this machine's byte order.
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order).astype(dtype.dtype.newbyteorder("="))


def _done(value: np.ndarray) -> _Array:
    array = _Array()
    array.value = value
    return array


def _reconstruct(subtype: Any, *_placeholder: Any) -> _Array:
    if subtype is not _NDARRAY:
        _refuse("it holds an array of an unknown class")
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> _Array:
    if order == "K" and isinstance(axis_order, tuple):
        return _done(_numbers(raw, dtype, shape, "C").transpose(axis_order))
    return _done(_numbers(raw, dtype, shape, "F" if order == "F" else "C"))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        _refuse(f"it encodes as {encoding!r}")
    return text.encode("latin1")


def _no_bytes(*args: Any) -> bytes:
    if args:
        _refuse("it converts something to bytes")
    return b""  # as protocols 0 to 2 write it


_NDARRAY = _Function(lambda *_: _refuse("it calls numpy.ndarray"))
_MULTIARRAY = {
    "_reconstruct": _Function(_reconstruct),
    "scalar": _Function(lambda dtype, raw: _done(_numbers(raw, dtype, (), "C"))),
}
ADMITTED: dict[tuple[str, str], _Function] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Function(_DType),
    ("_codecs", "encode"): _Function(_encode),
    ("__builtin__", "bytes"): _Function(_no_bytes),
    **{(f"numpy.{core}.multiarray", name): f for core in ("core", "_core") for name, f in _MULTIARRAY.items()},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Function(_frombuffer) for core in ("core", "_core")},
}
"""What a pickle may name, and what it gets."""


def _unwrap(value: Any, done: dict[int, Any]) -> Any:
    """The value with real arrays in it; each container once, however often it is mentioned."""
    if isinstance(value, _Array):
        if not hasattr(value, "value"):
            _refuse("it holds an array without content")
        return value.value
    if type(value) in _PLAIN:
        return value
    if id(value) in done:
        if done[id(value)] is _OPEN:
            _refuse("it holds a container that contains itself")
        return done[id(value)]
    done[id(value)] = _OPEN
    if type(value) is dict:
        result = {_unwrap(key, done): _unwrap(item, done) for key, item in value.items()}
    elif type(value) in (list, tuple, set, frozenset):
        result = type(value)(_unwrap(item, done) for item in value)
    else:
        _refuse(f"it holds a {type(value).__name__.lstrip('_')}")
    done[id(value)] = result
    return result


_OPEN = object()
