"""Guidance of one recording's samples: between the steps of sampling, and after them."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motion_grpo.body import NUM_BODY_JOINTS, NUM_HAND_JOINTS, Skeleton
from motion_grpo.guidance import residuals, so3
from motion_grpo.guidance.config import GuidanceConfig
from motion_grpo.guidance.residuals import ARMS, BODY, FINGERS, HANDS, TRUNK_AND_LEGS, Anchors, SeenHands
from motion_grpo.guidance.solver import Problem, Terms, levenberg_marquardt
from motion_grpo.guidance.terrain import Terrain
from motion_grpo.motion import MotionState
from motion_grpo.trajectory.head_poses import HeadPoses

Phase = Literal["inner", "post"]


@dataclass(frozen=True)
class GuidanceReport:
    """What guidance after sampling did: sums of squares of the weighted residuals, by term, of each sample."""

    before: dict[str, Float[Tensor, " samples"]]
    after: dict[str, Float[Tensor, " samples"]]
    accepted: Int[Tensor, " samples"]
    """Steps that lowered the cost."""
    iterations: int

    def __str__(self) -> str:
        """The mean over samples as one line."""
        terms = ", ".join(f"{name} {self.before[name].mean():.4g} to {x.mean():.4g}" for name, x in self.after.items())
        before, after = (sum(x.values()).mean() for x in (self.before, self.after))
        return f"guidance: cost {before:.4g} to {after:.4g} in {self.iterations} iterations ({terms})"


class Guide:
    """Fits the samples of one recording.

    Args:
        config: what is asked of them.
        skeleton: body that betas refer to.
        head: the head they hang from, floor at z = 0.
        betas: the wearer's shape, where it is known; else the mean over the frames of each sample.
        hands: where hands were seen; needed by the modes that use them.
        terrain: the ground, where it is not the floor; only ``penetration`` looks at it.
    """

    def __init__(
        self,
        config: GuidanceConfig,
        skeleton: Skeleton,
        head: HeadPoses,
        *,
        betas: Float[Tensor, "16"] | None = None,
        hands: SeenHands | None = None,
        terrain: Terrain | None = None,
    ) -> None:
        device = head.p_world_cpf.device
        self.config, self.head, self.betas = config, head, betas
        self.skeleton = skeleton.to(device)
        self.hands = None if hands is None else SeenHands(*(None if x is None else x.to(device) for x in hands))
        self.terrain = None if terrain is None else terrain.to(head.p_world_cpf)
        self._change: Float[Tensor, "3 3 samples frames joints"] | None = None

    def inner(self, state: MotionState) -> MotionState:
        """A predicted clean state, fitted by a few steps, which start with what the step of sampling before changed."""
        fingers = self.config.uses_hamer and self.hands is not None and state.hand_rotmats is not None
        start = _local(state, fingers)
        first = start if self._change is None else so3.product(start, self._change)
        problem = self._problem(state, start, "inner")
        iterations, damping = self.config.inner_iterations, self.config.damping
        found = levenberg_marquardt(problem, first, iterations=iterations, damping=damping).rotations
        self._change = so3.product_from(start, found)
        return _with_local(state, found)

    def post(self, state: MotionState) -> tuple[MotionState, GuidanceReport]:
        """Clean states, fitted over all of their frames; with fingers where the mode fits them."""
        start = _local(state, self.config.uses_hamer and self.hands is not None)
        iterations, damping = self.config.post_iterations, self.config.damping
        problem = self._problem(state, start, "post")
        solution = levenberg_marquardt(problem, start, iterations=iterations, damping=damping)
        report = GuidanceReport(solution.before, solution.after, solution.accepted, solution.iterations)
        return _with_local(state, solution.rotations), report

    def _problem(self, state: MotionState, start: Float[Tensor, "3 3 samples frames joints"], phase: Phase) -> Problem:
        c, hands = self.config, self.hands
        betas = state.mean_betas()[:, 0] if self.betas is None else self.betas.expand(len(state.betas), -1)
        fingers = start.shape[-1] > NUM_BODY_JOINTS
        reprojects = c.mode == "hamer_reproj2" and phase == "post" and fingers
        joints = start.shape[-1] if reprojects else NUM_BODY_JOINTS
        anchors = Anchors(
            rest_joints=self.skeleton.rest_joints(betas)[:, : joints + 1],
            cpf_offset=self.skeleton.cpf_offset(betas),
            R_world_cpf=self.head.R_world_cpf,
            p_world_cpf=self.head.p_world_cpf,
            rotations=start,
            contacts=state.contacts.clamp(0, 1),
        )
        at_start = anchors.place(start[..., :joints])
        position, rotation = c.aria_wrist_position, c.aria_wrist_rotation
        if c.wrists_from_hamer:
            position, rotation = c.hamer_wrist_position, c.hamer_wrist_rotation

        def terms(R: Float[Tensor, "3 3 samples frames joints"]) -> Terms:
            body = anchors.place(R[..., :joints])
            terms = {
                "prior_rotation": residuals.prior_rotation(anchors, R, c.prior_rotation),
                "prior_position": residuals.prior_position(body, at_start, c.prior_position),
                "change_smoothness": residuals.change_smoothness(anchors, R, c.change_smoothness),
                "pose_smoothness": residuals.pose_smoothness(R, c.pose_smoothness),
                "velocity_smoothness": residuals.velocity_smoothness(R, c.velocity_smoothness),
                "skating": residuals.skating(anchors, body, c.skating),
            }
            if hands is not None:
                terms["wrist_position"] = residuals.wrist_position(body, hands, position)
                terms["wrist_rotation"] = residuals.wrist_rotation(body, hands, rotation)
            if fingers:
                terms["finger_prior"] = residuals.prior_rotation(anchors, R, c.finger_prior, HANDS)
                terms["finger_smoothness"] = residuals.pose_smoothness(R, c.finger_smoothness, HANDS)
                terms["finger_rotation"] = residuals.finger_rotation(R, hands, c.finger_rotation)
            if reprojects:
                terms["reprojection"] = residuals.reprojection(anchors, body, hands, c.reprojection)
            if c.penetration:
                terms["penetration"] = residuals.penetration(body, self.terrain, c.penetration)
            return terms

        coupled = (*TRUNK_AND_LEGS, *ARMS) if hands is not None else TRUNK_AND_LEGS
        order = [joint - 1 for joint in (*coupled, *(FINGERS if fingers else ()))]
        return Problem(terms, order, len(coupled))


def _local(state: MotionState, fingers: bool) -> Float[Tensor, "3 3 samples frames joints"]:
    """The rotations that are optimized; fingers that the state lacks are flat."""
    parts = [state.body_rotmats]
    if fingers:
        flat = torch.eye(3).to(state.betas).expand(*state.betas.shape[:2], NUM_HAND_JOINTS, 3, 3)
        parts.append(flat if state.hand_rotmats is None else state.hand_rotmats)
    return so3.components_first(torch.cat(parts, dim=-3))


def _with_local(state: MotionState, rotations: Float[Tensor, "3 3 samples frames joints"]) -> MotionState:
    local = so3.components_last(rotations)
    state = state._replace(body_rotmats=local[..., BODY, :, :])
    return state._replace(hand_rotmats=local[..., HANDS, :, :]) if local.shape[-3] > NUM_BODY_JOINTS else state
