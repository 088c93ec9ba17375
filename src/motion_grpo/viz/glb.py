"""GLB: the skinned body with its motion, for Blender, Unity, Unreal, Godot, three.js and every glTF viewer."""

from pathlib import Path

import numpy as np
import pygltflib as gl
import torch
from jaxtyping import Float, UInt16
from torch import Tensor

from motion_grpo.body import NUM_BODY_AND_ROOT, NUM_JOINTS
from motion_grpo.body.joints import LEFT_FOOT, RIGHT_FOOT
from motion_grpo.body.skeleton import SOLE_UNDER_TOE
from motion_grpo.io.y_up import to_y_up
from motion_grpo.motion import Motion
from motion_grpo.viz.gltf import GltfFile
from motion_grpo.viz.mesh import shown_rotmats, skin_of
from motion_grpo.viz.raster import vertex_normals

_COLOR = (0.56, 0.36, 0.16, 1.0)  # linear; wood


def write_glb(motion: Motion, path: Path, *, model_path: str | Path | None = None) -> None:
    """Writes a GLB: y up, meters, floor at y = 0, time from 0; nodes are SMPL-H's joints by name.

    At rest the body stands in SMPL's T-pose, facing +z. Hands that are not known are relaxed and do not move.

    Args:
        model_path: licensed SMPL-H or SMPL-X file whose surface is shown; the mannequin when None.

    Raises:
        ValueError: the betas belong to another body than the file's, or to one that has no mannequin.
    """
    skin = skin_of(motion, model_path)
    poses = to_y_up(motion)
    rest = skin.rest_joints
    ground = rest[[LEFT_FOOT, RIGHT_FOOT], 1].min() - SOLE_UNDER_TOE
    rest_rotmats = torch.eye(3).repeat(NUM_JOINTS, 1, 1)
    if motion.hand_rotmats is None:
        rest_rotmats[NUM_BODY_AND_ROOT:] = shown_rotmats(motion)[0, NUM_BODY_AND_ROOT:]
    moving = range(motion.num_known_joints)

    file = GltfFile()
    file.add_skeleton(rest, rest[0] - torch.tensor([0.0, float(ground), 0.0]), rest_rotmats)
    file.add_animation(motion.timestamps - motion.timestamps[0], poses.local_rotmats, poses.root_positions, moving)

    vertices, faces = skin.vertices.numpy().astype(np.float32), skin.faces.numpy()
    joints, weights = strongest(skin.weights)
    indices = faces.ravel().astype(np.uint16 if len(vertices) <= 65535 else np.uint32)
    attributes = gl.Attributes(
        POSITION=file.add_array(vertices, gl.VEC3, target=gl.ARRAY_BUFFER),
        NORMAL=file.add_array(_normals(vertices, faces), gl.VEC3, target=gl.ARRAY_BUFFER),
        JOINTS_0=file.add_array(joints.astype(np.uint8), gl.VEC4, target=gl.ARRAY_BUFFER),
        WEIGHTS_0=file.add_array(weights, gl.VEC4, target=gl.ARRAY_BUFFER, normalized=True),
    )
    index = file.add_array(indices, gl.SCALAR, target=gl.ELEMENT_ARRAY_BUFFER)
    document = file.document
    surface = gl.PbrMetallicRoughness(baseColorFactor=list(_COLOR), metallicFactor=0.0, roughnessFactor=0.7)
    document.materials = [gl.Material(name="body", pbrMetallicRoughness=surface)]
    document.meshes = [
        gl.Mesh(name="body", primitives=[gl.Primitive(attributes=attributes, indices=index, material=0)])
    ]
    document.skins = [
        gl.Skin(joints=list(range(NUM_JOINTS)), skeleton=0, inverseBindMatrices=_inverse_bind(file, rest))
    ]
    file.roots.append(len(document.nodes))
    document.nodes.append(gl.Node(name="body", mesh=0, skin=0))
    file.save(path)


def strongest(
    weights: Float[Tensor, "vertices 52"],
) -> tuple[UInt16[np.ndarray, "vertices 4"], UInt16[np.ndarray, "vertices 4"]]:
    """The four joints that move a vertex most, and their shares, which add up to 65535; joint 0 where a share is 0."""
    share, joint = weights.topk(4, dim=1)
    share = torch.round(65535 * share / share.sum(1, keepdim=True)).to(torch.int64)
    share[:, 0] += 65535 - share.sum(1)
    joint[share == 0] = 0
    return joint.numpy().astype(np.uint16), share.numpy().astype(np.uint16)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    normals = vertex_normals(vertices.astype(np.float64), faces)
    alone = np.linalg.norm(normals, axis=1) < 0.5  # a vertex of no face; glTF wants unit length of all
    normals[alone] = (0.0, 1.0, 0.0)
    return normals.astype(np.float32)


def _inverse_bind(file: GltfFile, rest: Float[Tensor, "52 3"]) -> int:
    matrices = torch.eye(4).repeat(NUM_JOINTS, 1, 1)
    matrices[:, 3, :3] = -rest  # column-major
    return file.add_array(matrices.flatten(1).numpy().astype(np.float32), gl.MAT4)
