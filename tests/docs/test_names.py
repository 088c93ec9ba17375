"""What documents quote as code exists: files, classes and their members, settings, functions, tests."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *(ROOT / "docs").glob("*.md")]
CODE = ("src", "trainers", "pipelines", "benchmarks", "studies", "tools", "hub_cards", "examples", "tests")
FILES = re.compile(r"[\w./-]+\.(py|yaml|md|jinja|safetensors)")
USERS_FILES = re.compile(r"[\w.*/-]+\.(amc|asf|bin|bvh|csv|json|jsonl|npz|parquet|pkl)")
MODULE = re.compile(r"motion_grpo(\.\w+)+")
MEMBER = re.compile(r"([A-Z]\w+)\.(\w+)(\(.*\))?", re.DOTALL)
NAME = re.compile(r"(_?[a-z]\w*_\w+|_[A-Za-z]\w+|[A-Z]+_[A-Z_]+|[A-Z][a-z]+[A-Z]\w+)(\(.*\)|=.*|: .*)?", re.DOTALL)
ELSEWHERE = {
    "CUDA_VISIBLE_DEVICES", "DataParallel", "OMP_NUM_THREADS", "5_eval_body_metrics.py", "2_run_hamer_on_vrs.py",
    "timestamps_ns", "mixamorig_Hips", "pos_x",
    "p_RS_R_x", "q_w", "TimeStamp", "time_ms", "unix_time", "ovr_timestamp", "_qw", "_qx", "_qy", "_qz",
    "left_confidence", "XrSpaceLocation.pose", "XrFrameState.predictedDisplayTime", "simd_quatf",
    "WorldTrackingProvider.queryDeviceAnchor(atTimestamp:)",
}  # fmt: skip
"""Names of PyTorch and its environment, EgoAllo's scripts, OpenXR and ARKit, of columns and bones in users' files."""


def quoted(page: Path) -> list[str]:
    """What stands between backticks, outside of blocks."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"`([^`]+)`", prose)


def parsed() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Every identifier of the code, every word of a short string (columns, metrics, sources), settings and files."""
    found = {name for page in PAGES for name in re.findall(r"^def (\w+)", page.read_text(), re.MULTILINE)}
    found |= {name for page in PAGES for name in re.findall(r"^```\w+ file=(\S+)$", page.read_text(), re.MULTILINE)}
    found |= {path.name for folder in (*CODE, "configs") for path in (ROOT / folder).rglob("*.*")}
    found |= {path.stem for path in (ROOT / "examples").iterdir()}
    for path in (ROOT / "configs").rglob("*.yaml"):
        found |= set(yaml.safe_load(path.read_text()))
    for path, tree in parsed():
        found.add(path.stem)
        if path.is_relative_to(ROOT / "tests" / "docs"):
            continue
        for node in ast.walk(tree):
            found |= {
                value
                for field in ("id", "attr", "arg", "name", "asname")
                if isinstance(value := vars(node).get(field), str)
            }
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(node.value.split()) if len(node.value) < 200 else set()
    return found


@pytest.fixture(scope="module")
def members() -> dict[str, set[str]]:
    """By class: what it defines, with what its constructor sets and what its bases define."""
    own: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for path, tree in parsed():
        if not path.is_relative_to(ROOT / "src"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                inside = list(ast.walk(node))
                set_there = {x.attr for x in inside if isinstance(x, ast.Attribute) and isinstance(x.ctx, ast.Store)}
                fields = {x.target.id for x in node.body if isinstance(x, ast.AnnAssign)}
                methods = {x.name for x in inside if isinstance(x, ast.FunctionDef)}
                own[node.name] = methods | fields | set_there
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]

    def known(name: str) -> set[str]:
        return own.get(name, set()).union(*(known(base) for base in bases.get(name, [])))

    return {name: known(name) for name in own}


def missing(text: str, names: set[str], members: dict[str, set[str]]) -> bool:
    """Whether a quotation is a name of code that is nowhere."""
    if USERS_FILES.fullmatch(text) or text in ELSEWHERE:
        return False
    if FILES.fullmatch(text):
        if "/" in text:
            return not any((place / text).exists() for place in (ROOT, ROOT / "src" / "motion_grpo"))
        return text not in names
    if MODULE.fullmatch(text):
        return not importable(text)
    if match := MEMBER.fullmatch(text):
        return match[1] not in members or match[2] not in members[match[1]]
    if match := NAME.fullmatch(text):
        return match[1] not in names
    return False


def importable(path: str) -> bool:
    """A module, or something in one."""
    parts = path.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:depth]))
        except ImportError:
            continue
        for part in parts[depth:]:
            if part not in dir(found):
                return False
            found = vars(found).get(part, found)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_quoted_exists(page, names, members):
    stale = [text for text in dict.fromkeys(quoted(page)) if missing(text, names, members)]
    assert not stale, f"{page.name} quotes what is not there: {stale}"


def test_what_does_not_exist_is_found(names, members):
    """A method that was renamed, a file that was moved, a setting that was dropped, a module that is elsewhere."""
    for text in (
        "MotionGRPOTrainer._reference_clean", "_reference_clean", "training/reference.py", "grpo_large.yaml",
        "num_rollout_steps", "motion_grpo.training.reference", "HeadTrajectory.from_quaternions(poses)",
        "test_the_first_ratio_is_two", "NoSuchTrainer", "head_noise_phase: 1",
    ):  # fmt: skip
        assert missing(text, names, members), text
    for text in (
        "MotionGRPOTrainer.training_step", "training/grpo/trainer.py", "grpo_small.yaml", "num_sampling_steps",
        "motion_grpo.data.FEATURES", "HeadTrajectory.from_matrices(T_world_cpf, fps=30)", "sde_window_size: 0",
    ):  # fmt: skip
        assert not missing(text, names, members), text
