"""What GLB and VRMA share: a skeleton of SMPL-H's joints with its animation, as glTF 2.0 (Khronos, 2021)."""

from pathlib import Path

import numpy as np
import pygltflib as gl
import roma
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

import motion_grpo
from motion_grpo.body import JOINT_NAMES, PARENTS
from motion_grpo.files import whole_file

_COMPONENTS = {"float32": gl.FLOAT, "uint16": gl.UNSIGNED_SHORT, "uint8": gl.UNSIGNED_BYTE, "uint32": gl.UNSIGNED_INT}
_ROOT = 0


class GltfFile:
    """A glTF document and the binary chunk beside it, as they grow."""

    def __init__(self) -> None:
        self.document = gl.GLTF2(
            asset=gl.Asset(version="2.0", generator=f"motion-grpo {motion_grpo.__version__}"),
            scene=0,
        )
        self.roots: list[int] = []
        """Nodes without a parent."""
        self._chunk = bytearray()

    def add_array(
        self, array: Shaped[np.ndarray, "..."], kind: str, *, target: int | None = None, normalized: bool = False
    ) -> int:
        """Appends an array, with the range of its values, and returns its accessor's index.

        Args:
            array: count first; float32 or unsigned.
            kind: ``SCALAR``, ``VEC3``, ``VEC4`` or ``MAT4``.
            target: vertices or indices of a mesh.
            normalized: unsigned numbers stand for 0 to 1.
        """
        self._chunk.extend(bytes(-len(self._chunk) % 4))
        view = gl.BufferView(buffer=0, byteOffset=len(self._chunk), byteLength=array.nbytes, target=target)
        flat = array.reshape(len(array), -1)
        accessor = gl.Accessor(
            bufferView=len(self.document.bufferViews),
            componentType=_COMPONENTS[array.dtype.name],
            count=len(array),
            type=kind,
            normalized=normalized,
            min=flat.min(0).tolist(),
            max=flat.max(0).tolist(),
        )
        self._chunk.extend(np.ascontiguousarray(array).tobytes())
        self.document.bufferViews.append(view)
        self.document.accessors.append(accessor)
        return len(self.document.accessors) - 1

    def add_skeleton(
        self,
        rest_joints: Float[Tensor, "52 3"],
        root_position: Float[Tensor, "3"],
        rest_rotmats: Float[Tensor, "52 3 3"],
    ) -> None:
        """Appends a node for every joint, named and numbered as SMPL-H's, in the pose of the file at rest.

        Args:
            rest_joints: joints in SMPL's rest pose, meters.
            root_position: where the root stands in the file's rest pose, meters.
            rest_rotmats: of the file's rest pose, relative to the parent joint.
        """
        rotations = to_xyzw(rest_rotmats).tolist()
        for joint, name in enumerate(JOINT_NAMES):
            offset = rest_joints[joint] - rest_joints[PARENTS[joint]] if joint != _ROOT else root_position
            children = [child for child, parent in enumerate(PARENTS) if parent == joint]
            self.document.nodes.append(
                gl.Node(name=name, translation=offset.tolist(), rotation=rotations[joint], children=children)
            )
        self.roots.append(_ROOT)

    def add_animation(
        self,
        seconds: Float[Tensor, " frames"],
        local_rotmats: Float[Tensor, "frames 52 3 3"],
        root_positions: Float[Tensor, "frames 3"],
        moving: range,
    ) -> None:
        """Appends the motion of the skeleton; joints that are not among the moving ones stay as they are at rest."""
        quaternions = to_xyzw(local_rotmats).numpy().astype(np.float32)
        times = self.add_array(seconds.numpy().astype(np.float32), gl.SCALAR)
        animation = gl.Animation(name="motion")

        def add(node: int, path: str, values: np.ndarray, kind: str) -> None:
            sampler = gl.AnimationSampler(
                input=times, output=self.add_array(values, kind), interpolation=gl.ANIM_LINEAR
            )
            target = gl.AnimationChannelTarget(node=node, path=path)
            animation.channels.append(gl.AnimationChannel(sampler=len(animation.samplers), target=target))
            animation.samplers.append(sampler)

        add(_ROOT, gl.TRANSLATION, root_positions.numpy().astype(np.float32), gl.VEC3)
        for joint in moving:
            add(joint, gl.ROTATION, quaternions[:, joint], gl.VEC4)
        self.document.animations.append(animation)

    def save(self, path: Path) -> None:
        """Writes one binary file."""
        self.document.scenes = [gl.Scene(nodes=self.roots)]
        self.document.buffers = [gl.Buffer(byteLength=len(self._chunk))]
        self.document.set_binary_blob(bytes(self._chunk))
        with whole_file(path) as temporary:
            temporary.write_bytes(b"".join(self.document.save_to_bytes()))


def to_xyzw(rotmats: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions in glTF's order; along the first axis each has the sign that is nearer to the one before."""
    quaternions = roma.rotmat_to_unitquat(rotmats.double())
    if quaternions.ndim < 3:
        return quaternions
    turned = (quaternions[1:] * quaternions[:-1]).sum(-1, keepdim=True) < 0
    signs = torch.cumprod(torch.where(turned, -1.0, 1.0), dim=0)
    return torch.cat([quaternions[:1], signs * quaternions[1:]])
