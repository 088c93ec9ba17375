"""Pickles of numbers come out as they went in; pickles that would run code are refused before anything runs."""

import builtins
import collections
import copyreg
import os
import pickle
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motion_grpo.io.restricted_pickle import load_pickled_arrays

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
# A frame of RICH's, by the names and sizes of its arrays.
FIT_SIZES = {
    "betas": 10, "global_orient": 3, "transl": 3, "left_hand_pose": 12, "right_hand_pose": 12, "jaw_pose": 3,
    "leye_pose": 3, "reye_pose": 3, "expression": 10, "pose_embedding": 32, "body_pose": 63,
}  # fmt: skip


def write(tmp_path, data: bytes):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return path


def refused(reason: str):
    """Expects the error; the reason it gives comes last."""
    return pytest.raises(ValueError, match=f"nothing else is read from pickles: .*({reason})")


class Calls:
    """Pickles into a call."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_fit_comes_out_as_it_went_in(tmp_path, protocol):
    rng = np.random.default_rng(0)
    fit = {name: rng.normal(size=(1, size)).astype(np.float32) for name, size in FIT_SIZES.items()}
    read = load_pickled_arrays(write(tmp_path, pickle.dumps(fit, protocol)))
    assert list(read) == list(fit)
    for name, value in fit.items():
        np.testing.assert_array_equal(read[name], value)
        assert read[name].dtype == np.float32
        assert read[name].flags.writeable


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(
        hnp.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc" and dtype.itemsize <= 16),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    protocol=st.sampled_from(PROTOCOLS),
    transposed=st.booleans(),
)
def test_every_array_of_numbers_survives(tmp_path_factory, array, protocol, transposed):
    array = array.T if transposed else array
    path = write(tmp_path_factory.mktemp("any"), pickle.dumps([array, array], protocol))
    first, second = load_pickled_arrays(path)
    np.testing.assert_array_equal(first, array)
    np.testing.assert_array_equal(second, array)
    assert first.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_containers_and_scalars(tmp_path, protocol):
    shared = [1, 2.5, "text", b"\x00\xff", None, True]
    value = {"a": shared, "b": shared, 3: (np.float64(0.25), np.int32(7), {"deep": []})}
    read = load_pickled_arrays(write(tmp_path, pickle.dumps(value, protocol)))
    assert read["a"] == shared
    assert read["a"] is read["b"]
    assert read[3][0] == 0.25
    assert read[3][1].dtype == np.int32
    assert read[3][2] == {"deep": []}


def test_a_pickle_of_python_2(tmp_path):
    # pickle.dumps(numpy.array([[1., 2.]], 'f4'), 2) of Python 2: bytes are SHORT_BINSTRING, the module is an old one.
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tb."
    )
    np.testing.assert_array_equal(load_pickled_arrays(write(tmp_path, data)), [[1.0, 2.0]])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (os.system, ("touch {}",), "system"),
        (builtins.eval, ("open('{}', 'w')",), "eval"),
        (builtins.exec, ("open('{}', 'w')",), "exec"),
        (builtins.getattr, ("x", "__class__"), "getattr"),
        (subprocess.Popen, (["touch", "{}"],), "Popen"),
        (np.load, ("{}",), "load"),
        (np.memmap, ("{}", "u1", "w+", 0, (4,)), "memmap"),
        (collections.OrderedDict, (), "OrderedDict"),
        (copyreg._reconstructor, (collections.Counter, dict, {}), "_reconstructor|Counter"),
    ],
    ids=["system", "eval", "exec", "getattr", "Popen", "np.load", "memmap", "OrderedDict", "copyreg"],
)
def test_nothing_is_called(tmp_path, protocol, function, args, named):
    touched = tmp_path / "touched"

    def fill(a):
        return a.format(touched) if isinstance(a, str) else [fill(x) for x in a] if isinstance(a, list) else a

    data = pickle.dumps({"betas": np.zeros(10), "x": Calls(function, *map(fill, args))}, protocol)
    with refused(named):
        load_pickled_arrays(write(tmp_path, data))
    assert not touched.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_objects_are_refused_even_if_harmless(tmp_path, protocol):
    for array in (np.array([1, "a", None], object), np.array([Calls(os.system, "true")], object)):
        with refused("'O8'|system"):
            load_pickled_arrays(write(tmp_path, pickle.dumps(array, protocol)))
    for array in (np.zeros(2, [("a", "f4"), ("b", "O")]), np.array(["text"]), np.zeros(1, "datetime64[s]")):
        with refused("no numbers|no plain numbers"):
            load_pickled_arrays(write(tmp_path, pickle.dumps(array, protocol)))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        # A dotted name that would walk from an admitted name to something else.
        (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", "ndarray.__class__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)\x81.", "NEWOBJ"),  # instantiating an admitted name
        (b"cnumpy\nndarray\n(K\x02\x85tR.", "calls numpy.ndarray"),  # memory that nobody wrote
        (b"cnumpy\ndtype\n}U\x05_callNsb.", "state of a function"),  # writing into the reader itself
        (b"cnumpy\ndtype\nN}U\x08__call__Ns\x86b.", "state of a function"),
        (b"cnumpy\ndtype\nU\x02f4\x85R(K\x03U\x01<N(U\x01aNttb.", "no plain numbers"),
        (b"cnumpy\ndtype\n.", "Function"),
        (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R.", "without content"),
        (b"cnumpy.core.multiarray\n_reconstruct\nU\x04evilK\x00\x85U\x01b\x87R.", "unknown class"),
        (b"c_codecs\nencode\nU\x04evilU\x05rot13\x86R.", "rot13"),
        (b"Pos\n.", "persistent"),
        (b"(ios\nsystem\nU\x04true.", "os.system"),
        (b"(U\x04trueios\nsystem\n.", "os.system"),
        (b"]q\x00h\x00a.", "contains itself"),
        (b"\x80\x05\x96\x02\x00\x00\x00\x00\x00\x00\x00ab.", "bytearray"),
        (b"", "EOF|input"),
        (b"\x80\x04", "EOF|input|truncated"),
        (b"\x03PK no pickle", "invalid load key"),
    ],
)
def test_hand_made_pickles_are_refused(tmp_path, data, match):
    with refused(match):
        load_pickled_arrays(write(tmp_path, data))


def test_registered_extensions_open_no_door(tmp_path):
    copyreg.add_extension("os", "system", 240)
    try:
        data = b"\x80\x02\x82\xf0U\x04true\x85R."
        pickle.loads(data)  # other code may have used it, which leaves os.system in pickle's cache
        with refused("os.system|posix.system"):
            load_pickled_arrays(write(tmp_path, data))
    finally:
        copyreg.remove_extension("os", "system", 240)


def test_shapes_must_fit_the_bytes(tmp_path):
    data = pickle.dumps(np.zeros((2, 3), np.float32), 3)
    for shape in (b"K\x02K\x04\x86", b"J\xff\xff\xff\xffK\x03\x86"):
        with refused("reshape|shape"):
            load_pickled_arrays(write(tmp_path, data.replace(b"K\x02K\x03\x86", shape)))


def test_containers_within_containers_take_no_time(tmp_path):
    value: list = []
    for _ in range(60):  # 2^60 mentions of the innermost list
        value = [value, value]
    read = load_pickled_arrays(write(tmp_path, pickle.dumps(value, 4)))
    assert read[0] is read[1]


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_pickled_arrays(tmp_path / "none.pkl")
