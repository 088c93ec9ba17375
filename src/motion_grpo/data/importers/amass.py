"""AMASS (Mahmood et al. 2019; amass.is.tue.mpg.de) as published: npz files of SMPL+H or SMPL-X, any frame rate."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from motion_grpo.body import NUM_BETAS, NUM_BODY_AND_ROOT, Skeleton
from motion_grpo.body.betas import Gender, fit_betas, gender_to_neutral, load_skeleton
from motion_grpo.data.clips import Clip, ClipError
from motion_grpo.data.importers.base import Job
from motion_grpo.data.preprocessing import Recording, prepare
from motion_grpo.files import NPZ_ERRORS, source_files

LICENSE = "AMASS: non-commercial scientific research, no redistribution (amass.is.tue.mpg.de/license.html)"

SPLITS: dict[str, tuple[str, ...]] = {
    "train": (
        "ACCAD", "BMLhandball", "BMLmovi", "BioMotionLab_NTroje", "CMU", "DFaust_67", "DanceDB", "EKUT",
        "Eyes_Japan_Dataset", "KIT", "MPI_Limits", "TCD_handMocap", "TotalCapture",
    ),
    "val": ("HumanEva", "MPI_HDM05", "MPI_mosh", "SFU"),
    "test": ("Transitions_mocap", "SSM_synced"),
}  # fmt: skip
"""The paper's and EgoAllo's (MotionGRPO, Appendix D), by the folder names of AMASS's first release."""

# The download page's later names. Case, "_" and "-" are not looked at.
_LATER_NAMES = {
    "BMLrub": "BioMotionLab_NTroje", "DFaust": "DFaust_67", "EyesJapan": "Eyes_Japan_Dataset", "HDM05": "MPI_HDM05",
    "MoSh": "MPI_mosh", "PosePrior": "MPI_Limits", "SSM": "SSM_synced", "TCDHands": "TCD_handMocap",
    "Transitions": "Transitions_mocap",
}  # fmt: skip


def _plain(name):
    return re.sub(r"[\W_]", "", name.lower())


_SUBSETS = {_plain(name): name for names in SPLITS.values() for name in names}
_SUBSETS |= {_plain(later): name for later, name in _LATER_NAMES.items()}
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}

# Columns of poses and hands in them: SMPL+H, and SMPL-X, which has jaw and eyes between body and hands.
_HAND_COLUMNS = {156: slice(66, 156), 165: slice(75, 165)}
# Of SSM: recorded at about 60 Hz, said to be of 120 in both releases (nghorbani/amass, issue 68).
_SSM_SUBJECTS = ("20160930_50032", "20161014_50033")
HANDS_MOVE = 1e-3
"""Radians: hands that were not recorded hold one pose for the whole clip."""

_SMPLH_PELVIS = (-0.0018, -0.2233, 0.0282)
"""Meters: rest pelvis of the mean SMPL body. It stands in for the shaped one where there are no body files, which moves
the whole clip by a centimetre or two: along the floor that means nothing, and the height is found anew."""


@dataclass(frozen=True)
class AmassImporter:
    """Clips of AMASS on a gender-neutral body, floor at z = 0, 30 fps, in the paper's splits.

    With body files every clip is on the neutral SMPL-H body with the person's shape. Without, SMPL-X files of neutral
    gender keep their shape on the default body (its first ten betas); all others get its mean shape, since their betas
    mean nothing there. Rotations and the way through the world stay exact and the feet stand on the floor, but the feet
    of a person with legs 5% longer than average slide by 5% of each step.
    """

    root: Path
    """Holds the folders of sub data sets (``CMU/01/01_01_poses.npz``), at any depth, or is one of them."""
    body_models: Path | None = None
    """Folder of licensed SMPL-H files, ``{male,female,neutral}/model.npz``; None for the default body."""
    hands: bool = True
    """Keep finger rotations of clips in which they move."""
    keep: float = 0.8
    """Share of each clip that stays, from the middle."""
    name: str = "amass"

    def jobs(self) -> list[Job]:
        """One job a motion file, sorted by id; those outside of the splits too, to be dropped with the reason.

        Raises:
            FileNotFoundError: no such folder; a gender's file is missing in ``body_models``.
            ValueError: nothing there is AMASS; two files for one clip; a body file of another model.
        """
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root} is no folder; give the one that holds AMASS's CMU, KIT, ...")
        if self.body_models is not None:
            for gender in ("male", "female", "neutral"):
                load_skeleton(self.body_models, gender)
        jobs: dict[str, Job] = {}
        for path in source_files(self.root, "*.npz"):
            if path.stem == "shape" or path.stem.endswith("_stagei"):
                continue  # a subject's shape, no motion
            job = self._job(path)
            if job.id in jobs:
                raise ValueError(
                    f"{jobs[job.id].path} and {path} are the same clip; give a folder that holds one release of AMASS."
                )
            jobs[job.id] = job
        if not any(job.extra["subset"] for job in jobs.values()):
            raise ValueError(
                f"{self.root} holds no motion file in a folder named as AMASS's sub data sets (CMU, KIT, BMLrub, ...)."
            )
        return [jobs[key] for key in sorted(jobs)]

    def _job(self, path: Path) -> Job:
        folders = path.relative_to(self.root).parts[:-1]
        known = [i for i, folder in enumerate(folders) if _plain(folder) in _SUBSETS]
        if known:
            subset, below = _SUBSETS[_plain(folders[known[0]])], folders[known[0] + 1 :]
        elif _plain(self.root.resolve().name) in _SUBSETS:
            subset, below = _SUBSETS[_plain(self.root.resolve().name)], folders
        else:
            subset, below = "", folders
        # Some archives unpack to CMU/CMU/01/...
        while below and subset and _SUBSETS.get(_plain(below[0])) == subset:
            below = below[1:]
        stem = re.sub(r"_(poses|stageii)$", "", path.stem)
        skip = _skip_reason(subset, folders, stem)
        return Job(
            id="/".join([*([subset] if subset else []), *below, stem]),
            path=path,
            split=_SPLIT_OF.get(subset, "train"),
            extra={"subset": subset, "subject": below[0] if below else "", "skip": skip},
        )

    def convert(self, job: Job) -> list[Clip]:
        """The clip of one file.

        Raises:
            ClipError: on the skip list or in no split; too short; a shape without motion.
            ValueError: no npz, or one that needs unpickling; a key is missing or misshapen; numbers that
                are not finite.
        """
        if job.extra["skip"]:
            raise ClipError(job.extra["skip"])
        motion = prepare(self._read(job), keep=self.keep)
        subset = job.extra["subset"]
        return [
            Clip(
                id=job.id,
                source=f"amass-{subset}",
                motion=motion,
                subject=f"{subset}/{job.extra['subject']}" if job.extra["subject"] else "",
                split=job.split,
                license=LICENSE,
            )
        ]

    def _read(self, job: Job) -> Recording:
        arrays = _load(job.path)
        poses, trans = arrays["poses"], arrays["trans"]
        if poses.ndim != 2 or poses.shape[1] not in _HAND_COLUMNS or trans.shape != (len(poses), 3):
            raise ValueError(
                f"poses has shape {poses.shape} and trans {trans.shape}; AMASS has (frames, 156) or (frames, 165), "
                "and (frames, 3)."
            )
        if poses.dtype.kind != "f" or trans.dtype.kind != "f":
            raise ValueError(f"poses are {poses.dtype} and trans {trans.dtype}; AMASS has floating-point numbers.")
        is_smplx = poses.shape[1] == 165
        skeleton, betas, rest_pelvis = self._body(arrays, is_smplx)
        rotvecs, hands = poses[:, : 3 * NUM_BODY_AND_ROOT], poses[:, _HAND_COLUMNS[poses.shape[1]]]
        if self.hands and len(poses) and float(np.ptp(hands, axis=0).max()) > HANDS_MOVE:
            rotvecs = np.concatenate([rotvecs, hands], axis=1)
        return Recording(
            rotvecs=rotvecs.reshape(len(poses), -1, 3),
            root_positions=trans + rest_pelvis.numpy(),
            betas=betas,
            fps=_frame_rate(arrays, job, is_smplx),
            skeleton=skeleton,
        )

    def _body(
        self, arrays: dict[str, np.ndarray], is_smplx: bool
    ) -> tuple[Skeleton, Float[Tensor, "16"], Float[Tensor, "3"]]:
        # The body that comes out, its betas, and where the recorded body has its rest pelvis: AMASS's translation moves
        # the model's origin, so the pelvis is at trans + J0(betas)[0] of the body that was fitted.
        default = Skeleton.default()
        if is_smplx:
            betas = _betas(arrays) if _gender(arrays) == "neutral" else torch.zeros(NUM_BETAS)
            # Ten betas are known to the default body; the rest of a neutral shape is millimeters.
            rest = default.rest_joints(betas)
            if self.body_models is None:
                return default, betas * (torch.arange(NUM_BETAS) < 10), rest[0]
            neutral = load_skeleton(self.body_models, "neutral")
            return neutral, fit_betas(rest, neutral), rest[0]
        if self.body_models is None:
            return default, torch.zeros(NUM_BETAS), torch.tensor(_SMPLH_PELVIS)
        gender, betas = _gender(arrays), _betas(arrays)
        rest_pelvis = load_skeleton(self.body_models, gender).rest_joints(betas)[0]
        A, b = gender_to_neutral(self.body_models, gender)
        return load_skeleton(self.body_models, "neutral"), A @ betas + b, rest_pelvis


def _skip_reason(subset: str, folders: tuple[str, ...], stem: str) -> str:
    """Why EgoAllo and HuMoR leave a clip out; empty if they do not."""
    if not subset:
        return f"{folders[0] if folders else 'a file outside of any folder'} is in none of the paper's splits"
    name = "/".join([*folders, stem])
    if subset == "BioMotionLab_NTroje" and ("treadmill" in name or "normal_" in name):
        return "skip list: BioMotionLab_NTroje treadmill and normal_ clips (walking without getting anywhere)"
    if subset == "MPI_HDM05" and "dg/HDM_dg_07-01" in name:
        return "skip list: MPI_HDM05 dg/HDM_dg_07-01"
    return ""


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays that are needed, the frame rate as ``fps``; ``gender`` and ``betas`` if they are there."""
    arrays: dict[str, np.ndarray] = {}
    key = ""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in ("poses", "trans") if key not in file]
            rate = next((key for key in ("mocap_framerate", "mocap_frame_rate") if key in file), None)
            if "poses" in missing and "betas" in file:
                raise ClipError("a shape without a motion")
            if missing or rate is None:
                raise KeyError(", ".join([*missing, *([] if rate else ["mocap_framerate"])]))
            for key in ("poses", "trans", rate):
                arrays["fps" if key == rate else key] = file[key]
            for key in ("gender", "betas"):
                # Not every body needs these, so one that is a pickled object is as good as missing.
                with contextlib.suppress(KeyError, ValueError):
                    arrays[key] = file[key]
    except (ClipError, FileNotFoundError):
        raise
    except KeyError as error:
        raise ValueError(f"The file has no {error.args[0]}; it is no motion file of AMASS.") from None
    except NPZ_ERRORS as error:
        raise ValueError(f"{path} is not a readable npz file{f' ({key})' if key else ''}: {error}") from error
    return arrays


def _frame_rate(arrays: dict[str, np.ndarray], job: Job, is_smplx: bool) -> float:
    # Files of the first release whose own number is wrong (EgoAllo and HuMoR correct the same ones).
    if not is_smplx and job.extra["subset"] == "BMLhandball":
        return 240.0
    values = np.atleast_1d(arrays["fps"])
    fps = float(values[0]) if values.size == 1 and values.dtype.kind in "fiu" else float("nan")
    of_ssm = any(subject in str(job.path) for subject in _SSM_SUBJECTS)
    if of_ssm and (fps > 100 or not is_smplx):
        return 59.0
    if not 0 < fps < float("inf"):
        raise ValueError(f"mocap_framerate is {arrays['fps']!s}; it has to be one positive number.")
    return fps


def _gender(arrays: dict[str, np.ndarray]) -> Gender:
    if "gender" not in arrays:
        raise ValueError("The file has no readable gender, which its betas need.")
    value = np.atleast_1d(arrays["gender"])[0]
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    found = re.search("female|male|neutral", text.lower())
    if not found:
        raise ValueError(f"gender is {text!r}; the bodies are female, male and neutral.")
    return found.group()


def _betas(arrays: dict[str, np.ndarray]) -> Float[Tensor, "16"]:
    if "betas" not in arrays:
        raise ValueError("The file has no readable betas.")
    given = np.atleast_2d(arrays["betas"])[0]
    if given.ndim != 1 or given.dtype.kind not in "fiu" or len(given) < 10:
        raise ValueError(f"betas has shape {arrays['betas'].shape}; AMASS has 10 or 16 of them.")
    betas = torch.zeros(NUM_BETAS)
    betas[: min(len(given), NUM_BETAS)] = _tensor(given[:NUM_BETAS])
    return betas


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
