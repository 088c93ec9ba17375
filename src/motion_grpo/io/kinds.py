"""What a file is, by its name and its first bytes; nothing of it is read in full."""

import zipfile
from pathlib import Path

_SUFFIXES = {
    ".bvh": "a BVH recording, which `motion-grpo data bvh` imports",
    ".amc": "an AMC recording, which `motion-grpo data asf` imports with its .asf",
    ".asf": "the skeleton of AMC recordings",
    ".glb": "a glTF model, which this library writes and does not read",
    ".gltf": "a glTF model, which this library writes and does not read",
    ".vrma": "a VRM animation, which this library writes and does not read",
    ".fbx": "an FBX file; save it as BVH in Blender",
    ".pkl": "a Python pickle, which is never loaded here",
    ".vrs": "an Aria recording; run Meta's MPS on it and give the trajectory",
    ".mp4": "a video",
    ".gif": "a moving picture",
    ".png": "a picture",
    ".html": "a page",
    ".parquet": "a table; give the data set's folder instead",
    ".safetensors": "weights of a network",
}
_ARRAYS = {
    "a motion": {"poses", "trans", "betas"},
    "a head trajectory": {"T_world_cpf"},
    "the body of an SMPL model": {"v_template", "J_regressor"},
}
_FOLDERS = {
    "model_index.json": "a saved pipeline, for --checkpoint",
    "config.json": "a saved model",
    "closed_loop_trajectory.csv": "a head trajectory",
    "open_loop_trajectory.csv": "a head trajectory",
    "aria_trajectory.csv": "a head trajectory",
}
_TEXTS = (".csv", ".txt", ".tum", ".tsv", ".gz", "")


def kind_of(path: str | Path) -> str:
    """What the file or folder seems to be, in words: ``a motion``, ``a head trajectory``, or something else.

    Raises:
        FileNotFoundError: nothing is there.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    suffix = path.suffix.lower()
    if path.is_dir():
        return _folder(path)
    if path.stat().st_size == 0:
        return "an empty file"
    if zipfile.is_zipfile(path):
        return _archive(path)
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    return "a head trajectory" if suffix in _TEXTS else f"a {suffix} file, which this library does not know"


def _folder(path: Path) -> str:
    for name, kind in _FOLDERS.items():
        if next(path.rglob(name), None) is not None:
            return kind
    if next(path.rglob("*.parquet"), None) is not None:
        return "a data set of motion"
    return "a folder without anything that this library reads"


def _archive(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    for kind, needed in _ARRAYS.items():
        if needed <= names:
            return kind
    return f"an archive of {', '.join(sorted(names)[:6])}{' ...' if len(names) > 6 else ''}"
