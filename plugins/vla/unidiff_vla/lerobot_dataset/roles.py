"""What a policy reads of a data set: which features are pictures, states and actions."""

from .reader import LeRobotFolder

ACTION, STATE = "action", "observation.state"
_IMAGE, _IMAGES = "observation.image", "observation.images."


def camera_feature(camera: str) -> str:
    """The feature of a camera's pictures."""
    return _IMAGE if camera == "image" else f"{_IMAGES}{camera}"


def camera_features(folder: LeRobotFolder) -> dict[str, str]:
    """Camera -> its feature, in the order of the data set.

    Raises:
        ValueError: if there is none, or no states or actions.
    """
    if {_IMAGE, f"{_IMAGES}image"} <= set(folder.features):
        raise ValueError(
            f"{folder.folder} has both {_IMAGE!r} and '{_IMAGES}image', and both are the camera "
            "'image': rename one"
        )
    missing = sorted({ACTION, STATE} - set(folder.features))
    cameras = {
        _single(folder) if name == _IMAGE else name.removeprefix(_IMAGES): name
        for name in folder.features
        if name == _IMAGE or name.startswith(_IMAGES)
    }
    if missing or not cameras:
        lacking = [*missing, *([] if cameras else [f"{_IMAGE} or {_IMAGES}<camera>"])]
        raise ValueError(
            f"{folder.folder} lacks the features {lacking}; it has {sorted(folder.features)}: "
            "rename yours, or record them"
        )
    return cameras


def _single(folder: LeRobotFolder) -> str:
    """Name of a data set's only camera, where our recorder noted one."""
    settings = folder.info.get("unidiff", {}).get("settings", {})
    named = settings.get("cameras") or ["image"]
    return str(named[0]) if len(named) == 1 else "image"
