"""Small pictures of a MuJoCo scene, fast on a machine without a GPU.

Shadow maps (4096 x 4096) and fourfold antialiasing are nearly all of the cost of a 64 px picture in
software; without them, and with the camera near the table, it is some 20 times faster. Sampling and
shadow size are read once, when the renderer is made.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A free camera that looks at a point.

    Attributes:
        lookat: (x, y, z) in metres.
        distance: from the point, metres.
        azimuth: degrees.
        elevation: degrees, negative from above.
    """

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


CAMERAS = {
    "side": Camera((0.0, 0.68, 0.08), 1.0, 180.0, -50.0),  # y across, x and z down
    "front": Camera((0.0, 0.66, 0.12), 1.0, -90.0, -30.0),  # faces the robot: x across, z down
}


class FastRenderer:
    """Renders one model without shadows, reflections and antialiasing.

    Args:
        mujoco: the module.
        model: the `MjModel`; its visual quality is lowered, its physics stays.
        size: height and width in pixels.

    Raises:
        RuntimeError: if there is no OpenGL to render with, with what to do.
    """

    def __init__(self, mujoco: Any, model: Any, size: int) -> None:
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        self._mujoco = mujoco
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except mujoco.FatalError as error:
            raise RuntimeError(
                f"MuJoCo cannot render here ({error}); it reads MUJOCO_GL when it is imported: set "
                "MUJOCO_GL=egl before, or make the environment before importing mujoco"
            ) from error

    def picture(self, data: Any, camera: Camera) -> np.ndarray:
        """What a camera sees of the `MjData`, (size, size, 3) uint8."""
        flags = self._mujoco.mjtRndFlag
        self._renderer.update_scene(data, camera=self._free_camera(camera))
        # update_scene sets the flags anew each time.
        self._renderer.scene.flags[flags.mjRND_SHADOW] = 0
        self._renderer.scene.flags[flags.mjRND_REFLECTION] = 0
        return self._renderer.render().copy()

    def close(self) -> None:
        """Free the OpenGL context: left to the interpreter's end it prints errors."""
        self._renderer.close()

    def _free_camera(self, camera: Camera) -> Any:
        free = self._mujoco.MjvCamera()
        free.type = self._mujoco.mjtCamera.mjCAMERA_FREE
        free.lookat[:] = camera.lookat
        free.distance, free.azimuth, free.elevation = (
            camera.distance,
            camera.azimuth,
            camera.elevation,
        )
        return free
