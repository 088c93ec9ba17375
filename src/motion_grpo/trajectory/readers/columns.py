"""Finding time, position and quaternion among the columns of somebody's log, by their names."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

_AXES = frozenset("xyzw")
_LONG = {
    "position": {"pos", "position", "trans", "translation", "loc", "location"},
    "rotation": {"quat", "quaternion", "rot", "rotation", "ori", "orient", "orientation", "attitude"},
}
_SHORT = {"position": {"p", "t"}, "rotation": {"q", "r", "o"}}
_KINDS = {word: kind for names in (_LONG, _SHORT) for kind, words in names.items() for word in words}
# Whose pose it is. A column may be of the head, or of something else that the same file logs.
_HEAD = {"head", "hmd", "headset", "cam", "camera", "main", "center", "centre", "eye", "viewer", "glasses", "cpf"}
_OTHERS = {"left", "right", "hand", "controller", "wrist", "gaze", "tracker", "body", "hip", "object", "target"}
_FRAMES = {"world", "global", "map", "pose", "field", "transform", "local", "data", "anchor", "device"}
# What else has axes, and is no pose.
_DERIVED = {
    "v", "vel", "velocity", "speed", "acc", "accel", "acceleration", "gyro", "angular", "linear", "gravity", "mag",
    "magnetic", "bias", "euler", "scale", "forward", "std", "cov", "covariance", "error", "delta", "dir", "direction",
}  # fmt: skip
_TIME = {"time", "timestamp", "timestamps", "stamp", "t", "ts", "elapsed"}
_NO_TIME = {"delta", "dt", "exposure", "zone", "duration", "latency", "frame"}
_WALL_CLOCK = {"unix", "utc", "epoch", "wall", "system", "date", "gps", "local", "server"}
_SECONDS = {
    1.0: {"s", "sec", "secs", "second", "seconds"},
    1e-3: {"ms", "msec", "msecs", "millis", "millisecond", "milliseconds"},
    1e-6: {"us", "usec", "usecs", "µs", "μs", "micros", "microsecond", "microseconds"},
    1e-9: {"ns", "nsec", "nsecs", "nanos", "nanosec", "nanosecs", "nanosecond", "nanoseconds"},
}
_TIME_UNITS = {word: seconds for seconds, words in _SECONDS.items() for word in words}
_LENGTHS = {
    1.0: {"m", "meter", "meters", "metre", "metres"},
    1e-2: {"cm", "centimeter", "centimeters", "centimetre", "centimetres"},
    1e-3: {"mm", "millimeter", "millimeters", "millimetre", "millimetres"},
    1e3: {"km", "kilometer", "kilometers", "kilometre", "kilometres"},
    0.0254: {"in", "inch", "inches"},
    0.3048: {"ft", "foot", "feet"},
}
_LENGTH_UNITS = {word: meters for meters, words in _LENGTHS.items() for word in words}

_ALTERNATIVES = "|".join(sorted(_KINDS, key=len, reverse=True))
_COMPOUND = re.compile(rf"({'|'.join(_HEAD)}|)({_ALTERNATIVES})([xyzw])")
_AXIS_FIRST = re.compile(rf"([xyzw])({_ALTERNATIVES})")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-zµμ]+|\d+")
_BRACKET = re.compile(r"[\[(]([^\])]*)[\])]")
_TIME_AND_UNIT = re.compile(r"(t|time|timestamp|stamp)(ns|us|ms|nsec|usec|msec|sec|secs|seconds)")

ACCEPTED = (
    "a time (timestamp, time, t, with or without a unit: timestamp_ns, 'Time (ms)'), a position (x y z, tx, pos_x, "
    "HeadPosX, head_position.x, 'Position X', p_RS_R_x) and a quaternion (qw qx qy qz, rot_w, quat_w, HeadRotW, "
    "orientation.w, q_RS_w)"
)
"""Names that are understood, for messages."""


@dataclass(frozen=True)
class TimeColumn:
    """One way to tell the time of a row: a column, or a column of seconds and one of the nanoseconds beyond them."""

    name: str
    indices: tuple[int, ...]
    seconds_per_unit: float | None
    """None where the name does not say."""


@dataclass(frozen=True)
class PoseColumns:
    """Where a table keeps the pose of the head."""

    position: tuple[int, ...]
    """x, y, z."""
    quaternion: tuple[int, ...]
    """w, x, y, z."""
    times: list[TimeColumn]
    """What may be the time, best first: a clock of the device before one of the wall."""
    metres_per_unit: tuple[float, float, float] | None = None
    """Of x, y and z; None where the names do not say."""
    floor_height: int | None = None


@dataclass(frozen=True)
class WristColumns:
    """Where a table keeps one wrist."""

    pose: tuple[int, ...]
    """Quaternion w, x, y, z, then position x, y, z."""
    metres_per_unit: tuple[float, float, float]
    visible: int | None
    confidence: int | None


TUM_NAMES = ["time", "tx", "ty", "tz", "qx", "qy", "qz", "qw"]
"""Of rows without names."""
TUM_COLUMNS = PoseColumns((1, 2, 3), (7, 4, 5, 6), [TimeColumn("time", (0,), None)])
"""Where these stand."""


def find_columns(path: object, names: list[str], *, need_time: bool) -> PoseColumns:
    """Where the head's pose stands among columns of these names.

    Names are read as words: ``HeadPosX``, ``head_pos.x`` and ``Head Position X [m]`` are the same. The order of the
    columns does not matter, other columns are ignored, and so are poses of hands and controllers.

    Args:
        path: for messages.
        need_time: whether a table without times is refused.

    Raises:
        ValueError: missing columns, all of them named, or poses of several heads.
    """
    groups: dict[tuple[str, tuple[str, ...]], _Group] = {}
    floor_height = None
    for index, name in enumerate(names):
        words, units = _words(name)
        if "".join(words) == "floorheight":
            floor_height = index
        elif role := _pose_role(words):
            kind, who, axis = role
            group = groups.setdefault((kind, who), _Group())
            group.columns.setdefault(axis, index)
            group.add_unit(axis, _length_unit([*units, words[-1]]))
    times = find_times(names)
    # A position named by its axes alone becomes a quaternion by its w.
    bare = {who: group for (kind, who), group in groups.items() if kind == "bare"}
    position, quaternion = (
        {who: group for (k, who), group in groups.items() if k == kind} for kind in ("position", "rotation")
    )
    position |= {who: group for who, group in bare.items() if "w" not in group.columns and who not in position}
    quaternion |= {who: group for who, group in bare.items() if "w" in group.columns and who not in quaternion}
    place, turn = _heads(path, names, position, "xyz", quaternion, "wxyz")
    missing = [] if times or not need_time else ["timestamp"]
    missing += [axis for axis in "xyz" if axis not in place.columns]
    missing += [f"q{axis}" for axis in "wxyz" if axis not in turn.columns]
    if missing:
        euler = " Angles are not read as rotations: write quaternions." if set(turn.columns) == set("xyz") else ""
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)} that a head trajectory has: {ACCEPTED}; without a time, "
            f"load_trajectory(path, fps=...) says when. It has {', '.join(names)}.{euler}"
        )
    return PoseColumns(
        tuple(place.columns[axis] for axis in "xyz"),
        tuple(turn.columns[axis] for axis in "wxyz"),
        times,
        place.metres_per_unit,
        floor_height,
    )


def find_times(names: list[str]) -> list[TimeColumn]:
    """Columns that may be the time, best first; see :class:`PoseColumns`."""
    times: list[tuple[list[str], TimeColumn]] = []
    for index, name in enumerate(names):
        words, units = _words(name)
        if _is_time(words) and not _pose_role(words):
            unit = next((_TIME_UNITS[word] for word in [*units, *reversed(words)] if word in _TIME_UNITS), None)
            times.append((words, TimeColumn(name, (index,), unit)))
    return _ranked(times)


def find_wrist(path: object, names: list[str], side: str) -> WristColumns | None:
    """Where the ``left`` or ``right`` wrist stands among columns of these names; None where there is no such wrist.

    Names are read as those of the head are: ``left_wrist_qx``, ``LeftWristRotX``; ``left_visible``,
    ``left_confidence``.

    Raises:
        ValueError: missing columns of the pose, all of them named.
    """
    parts: dict[str, int] = {}
    place, flags = _Group(), {}
    for index, name in enumerate(names):
        words, units = _words(name)
        role = _pose_role(words)
        if role and set(role[1]) == {side, "wrist"}:
            parts.setdefault(f"q{role[2]}" if role[0] == "rotation" else role[2], index)
            if role[0] != "rotation":
                place.add_unit(role[2], _length_unit([*units, words[-1]]))
        for flag in ("visible", "confidence"):
            if set(words) - {"wrist"} == {side, flag}:
                flags.setdefault(flag, index)
    if not parts:
        return None
    wanted = ("qw", "qx", "qy", "qz", "x", "y", "z")
    missing = [f"{side}_wrist_{part}" for part in wanted if part not in parts]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)} that a table of wrists has; it has {', '.join(names)}."
        )
    return WristColumns(
        tuple(parts[part] for part in wanted),
        place.metres_per_unit or (1.0, 1.0, 1.0),
        flags.get("visible"),
        flags.get("confidence"),
    )


def looks_like_names(names: list[str]) -> bool:
    """Whether these are the names of a table's columns, as its commented header may be, and not prose."""
    roles = [_pose_role(_words(name)[0]) for name in names]
    return len({role[2] for role in roles if role}) >= 3


@dataclass
class _Group:
    """Columns of one kind that belong together: axis to index."""

    columns: dict[str, int] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)

    def add_unit(self, axis: str, meters: float | None) -> None:
        """Keeps the unit that an axis' name says, if it says one."""
        if meters is not None:
            self.units.setdefault(axis, meters)

    @property
    def metres_per_unit(self) -> tuple[float, float, float] | None:
        """Of x, y and z: an axis whose name says none has the others'."""
        if not self.units:
            return None
        x, y, z = (self.units.get(axis, next(iter(self.units.values()))) for axis in "xyz")
        return x, y, z


def _words(name: str) -> tuple[list[str], list[str]]:
    """The words of a column's name in lower case, and the unit in its brackets."""
    units = [word.lower() for bracket in _BRACKET.findall(name) for word in _WORD.findall(bracket)]
    words = []
    for word in _WORD.findall(_BRACKET.sub(" ", name)):
        match = _TIME_AND_UNIT.fullmatch(word.lower())
        words += match.groups() if match else (word.lower(),)
    return words, units


def _pose_role(words: list[str]) -> tuple[str, tuple[str, ...], str] | None:
    """Kind (``position``, ``rotation``, ``bare``), whose it is, and axis; None for what is no part of a pose."""
    if _DERIVED & set(words):
        return None
    for place in range(len(words) - 1, -1, -1):
        rest = (*words[:place], *words[place + 1 :])
        if words[place] in _AXES:
            return _kind(rest, words[place - 1] if place else "", words[place])
        if match := _COMPOUND.fullmatch(words[place]):
            owner = (match[1],) if match[1] else ()
            return _KINDS[match[2]], _whose((*owner, *rest)), match[3]
        if match := _AXIS_FIRST.fullmatch(words[place]):
            return _KINDS[match[2]], _whose(rest), match[1]
    return None


def _kind(rest: tuple[str, ...], before: str, axis: str) -> tuple[str, tuple[str, ...], str] | None:
    for kind, names in _LONG.items():
        if names & set(rest):
            return kind, _whose(tuple(word for word in rest if word not in names)), axis
    for kind, names in _SHORT.items():
        if rest and rest[0] in names:  # p_RS_R_x
            return kind, _whose(rest[1:]), axis
    others = tuple(word for word in rest if word != before)
    if not set(others) <= _HEAD | _OTHERS | _FRAMES | set(_LENGTH_UNITS):
        return None
    for kind, names in _SHORT.items():
        if before in names:  # head_p_x
            return kind, _whose(others), axis
    return ("bare", _whose(rest), axis) if set(rest) <= _HEAD | _OTHERS | _FRAMES | set(_LENGTH_UNITS) else None


def _length_unit(units: list[str]) -> float | None:
    return next((_LENGTH_UNITS[unit] for unit in units if unit in _LENGTH_UNITS), None)


def _whose(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in _LENGTH_UNITS)


def _heads(
    path: object,
    names: list[str],
    position: dict[tuple[str, ...], _Group],
    position_axes: str,
    quaternion: dict[tuple[str, ...], _Group],
    quaternion_axes: str,
) -> tuple[_Group, _Group]:
    """The position and the quaternion of the head; groups that lack something where there is no whole one."""
    place, turn = _candidates(position, position_axes), _candidates(quaternion, quaternion_axes)
    same = [who for who in place if who in turn]
    if len(same) == 1:
        place, turn = {same[0]: place[same[0]]}, {same[0]: turn[same[0]]}
    for found, axes in ((place, position_axes), (turn, quaternion_axes)):
        if len(found) > 1:
            listed = "; ".join(
                ", ".join(names[group.columns[axis]] for axis in axes if axis in group.columns)
                for group in found.values()
            )
            raise ValueError(f"{path} may hold the head's pose in several columns ({listed}): keep those of the head.")
    return next(iter(place.values()), _Group()), next(iter(turn.values()), _Group())


def _candidates(groups: dict[tuple[str, ...], _Group], axes: str) -> dict[tuple[str, ...], _Group]:
    """The groups that may be the head's: whole ones, named after it, or at least after nothing else."""
    whole = {who: group for who, group in groups.items() if set(axes) <= group.columns.keys()}
    if not whole:
        fullest = sorted(groups.items(), key=lambda item: -len(item[1].columns))[:1]
        return {who: group for who, group in fullest if not _is(who, _OTHERS)}
    free = {who: group for who, group in whole.items() if not _is(who, _OTHERS)}
    return {who: group for who, group in free.items() if _is(who, _HEAD)} or free


def _is(who: tuple[str, ...], words: Collection[str]) -> bool:
    return bool(set(who) & set(words))


def _is_time(words: list[str]) -> bool:
    if set(words) & _NO_TIME:
        return False
    return bool(set(words) & _TIME) or (bool(words) and set(words) <= _TIME_UNITS.keys())


def _ranked(times: list[tuple[list[str], TimeColumn]]) -> list[TimeColumn]:
    """Best first: ROS's pair of seconds and nanoseconds, then clocks of the device, then those of the wall."""
    whole = {tuple(words[:-1]): time for words, time in times if words[-1] in ("sec", "secs")}
    beyond = {tuple(words[:-1]): time for words, time in times if words[-1] in ("nsec", "nsecs", "nanosec", "nanosecs")}
    pairs = [
        TimeColumn(f"{whole[who].name} and {beyond[who].name}", whole[who].indices + beyond[who].indices, 1.0)
        for who in whole
        if who in beyond
    ]
    if pairs:
        return pairs
    return [time for _, time in sorted(times, key=lambda item: bool(set(item[0]) & _WALL_CLOCK))]
