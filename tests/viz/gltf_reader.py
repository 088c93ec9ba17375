"""Reads our glTF files anew: arrays, skeletons, poses, skins; and asks Khronos' validator about them."""

import json
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pygltflib as gl
import pytest
import roma
import torch

_TYPES = {gl.FLOAT: "<f4", gl.UNSIGNED_SHORT: "<u2", gl.UNSIGNED_BYTE: "u1", gl.UNSIGNED_INT: "<u4"}
_SIZES = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_PACKAGES = (
    "gltf-validator@2.0.0-dev.3.10",
    "three@0.187.0",
    "@pixiv/three-vrm@3.5.5",
    "@pixiv/three-vrm-animation@3.5.5",
)
_VALIDATE = """
const fs = require('fs'), validator = require('gltf-validator');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


class Gltf:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.document = gl.GLTF2().load_binary(str(path))
        self._blob = self.document.binary_blob()
        (self.animation,) = self.document.animations
        self.times = self.array(self.animation.samplers[0].input)[:, 0]

    def array(self, index: int) -> np.ndarray:
        accessor = self.document.accessors[index]
        view = self.document.bufferViews[accessor.bufferView]
        size, dtype = _SIZES[accessor.type], np.dtype(_TYPES[accessor.componentType])
        flat = np.frombuffer(self._blob, dtype, accessor.count * size, view.byteOffset)
        return flat.reshape(accessor.count, size)

    def world(self, frame: int | None) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Rotation and position of every node in the scene at a frame, or at rest."""
        nodes = self.document.nodes
        rotations = {i: np.array(node.rotation or [0, 0, 0, 1.0]) for i, node in enumerate(nodes)}
        positions = {i: np.array(node.translation or [0, 0, 0.0]) for i, node in enumerate(nodes)}
        for channel in self.animation.channels if frame is not None else ():
            values = self.array(self.animation.samplers[channel.sampler].output)[frame]
            (rotations if channel.target.path == "rotation" else positions)[channel.target.node] = values
        found_R, found_p = {}, {}

        def walk(node: int, R: np.ndarray, p: np.ndarray) -> None:
            found_p[node] = p + R @ positions[node]
            found_R[node] = R @ roma.unitquat_to_rotmat(torch.tensor(rotations[node], dtype=torch.float64)).numpy()
            for child in nodes[node].children or []:
                walk(child, found_R[node], found_p[node])

        for root in self.document.scenes[0].nodes:
            walk(root, np.eye(3), np.zeros(3))
        return found_R, found_p

    def joints(self, frame: int | None) -> np.ndarray:
        """Positions of the 52 joints."""
        _, positions = self.world(frame)
        return np.stack([positions[joint] for joint in range(52)])

    def vertices(self, frame: int | None) -> np.ndarray:
        """The skinned mesh, by the rules of glTF 2.0, section 3.7.3."""
        R, p = self.world(frame)
        attributes = self.document.meshes[0].primitives[0].attributes
        rest = self.array(attributes.POSITION)
        inverse = self.array(self.document.skins[0].inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints, weights = self.array(attributes.JOINTS_0), self.array(attributes.WEIGHTS_0) / 65535
        matrices = np.stack([_matrix(R[j], p[j]) @ inverse[j] for j in self.document.skins[0].joints])
        blended = (weights[..., None, None] * matrices[joints]).sum(1)
        return np.einsum("vij,vj->vi", blended[:, :3, :3], rest) + blended[:, :3, 3]


def issues_of(path: Path) -> dict:
    """What Khronos' validator says; skips where node or the npm registry do not answer."""
    return _node("-e", _VALIDATE, str(path))


def joints_in_three(path: Path, seconds: float) -> np.ndarray:
    """The 52 joints as three.js plays them, meters; skips as :func:`issues_of`."""
    script = shutil.copy(Path(__file__).with_name("three_joints.mjs"), _packages())
    return np.array(_node(script, str(path), str(seconds)))


def _node(*arguments: str):
    node = subprocess.run(
        ["node", *arguments], cwd=_packages(), check=True, capture_output=True, text=True, timeout=120
    )
    return json.loads(node.stdout.splitlines()[-1])


@cache
def _packages() -> Path:
    """A folder with what is needed of npm."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    folder = Path(tempfile.gettempdir()) / "motion-grpo-npm"
    if not folder.is_dir():
        fresh = Path(tempfile.mkdtemp())
        install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(fresh), *_PACKAGES]
        try:
            subprocess.run(install, check=True, capture_output=True, timeout=120)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip("the npm registry does not give gltf-validator and three")
        with suppress(OSError):  # another process was faster
            fresh.rename(folder)
    return folder


def _matrix(R: np.ndarray, p: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = R, p
    return matrix
