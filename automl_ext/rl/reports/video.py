"""Recording of an episode as GIF or MP4."""

from __future__ import annotations

import io
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np

from automl_ext.rl.envs.guard import rgb
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.evaluate import Act, Begin
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_atomic

WRITERS = {".gif": "PIL", ".mp4": "imageio_ffmpeg"}
LONGEST = 3_000  # frames of a video; 2 GB at CartPole's 600 × 400
SMALLEST = 200  # pixels; smaller images are enlarged by an integer factor


def check_writer(path: Path) -> None:
    """Check the suffix of a video file and the packages, before an episode is played.

    Raises:
        UserError: the suffix is neither .gif nor .mp4.
        ModuleNotFoundError: a package is missing; the message names the extra.
    """
    if path.suffix not in WRITERS:
        raise UserError(f"{path}: expected a name that ends in {' or '.join(WRITERS)}")
    module = WRITERS[path.suffix]
    if find_spec(module) is None:
        raise ModuleNotFoundError(f'{path} needs {module}: pip install "automl_ext[video]"', name=module)


class Film(NamedTuple):
    """A recorded episode.

    Attributes:
        frames: uint8 [height, width, 3], the image before each step.
        fps: frames per second.
        episode_return: undiscounted return.
        cut: whether the episode was longer than the recording.
    """

    frames: list[np.ndarray]
    fps: int
    episode_return: float
    cut: bool


def record(act: Act, envs: Envs, begin: Begin | None = None, max_steps: int = LONGEST) -> Film:
    """Record one episode, of the first agent or task if there are several.

    Args:
        act, begin: see :func:`automl_ext.rl.loop.evaluate.play`.
        envs: one environment, or one of each agent or task, made with ``render``; it is closed afterwards.
        max_steps: maximum number of frames.

    Raises:
        UserError: the environment cannot render images.
    """
    frames: list[np.ndarray] = []
    try:
        ended: list[float] = []  # the return of the episode
        while not ended and len(frames) < max_steps:
            frames.append(_image(envs))
            if frames[-1].shape != frames[0].shape:
                sizes = " and ".join(str(list(frame.shape)) for frame in (frames[0], frames[-1]))
                raise UserError(f"rendering: expected images of one size, got {sizes}")
            if begin is not None:
                begin(envs.starting)
            envs.step(act(envs.observations))
            ended = [episode.episode_return for episode in envs.episodes if episode.env == 0]
        fps = int(envs.vector.metadata.get("render_fps") or 30)
        return Film(frames, fps, ended[0] if ended else float(envs.running_returns[0]), not ended)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"rendering: {error}") from None
    finally:
        envs.close()


def write_video(path: Path, frames: list[np.ndarray], fps: int) -> None:
    """Write images, uint8 [height, width, 3], to a ``….gif`` or ``….mp4`` file."""
    if path.suffix == ".gif":
        from PIL import Image

        images = [Image.fromarray(frame) for frame in frames]
        # GIF has a resolution of 10 ms, and viewers slow down frames shorter than 20 ms.
        duration = max(20, round(100 / fps) * 10)
        buffer = io.BytesIO()
        images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
        write_atomic(path, buffer.getvalue())
        return
    import imageio_ffmpeg

    height, width = (size - size % 2 for size in frames[0].shape[:2])  # the codec needs even sizes
    with tempfile.TemporaryDirectory() as folder:  # the codec reports a failed write only in its log
        made = Path(folder) / "video.mp4"
        writer = imageio_ffmpeg.write_frames(str(made), (width, height), fps=fps, macro_block_size=2)
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame[:height, :width]))
        writer.close()
        if not made.is_file() or not made.stat().st_size:
            raise UserError(f"{path}: the codec wrote no data: is the disk of {folder} full?")
        write_atomic(path, made.read_bytes())


def _image(envs: Envs) -> np.ndarray:
    """Return an image of the first environment, uint8 [height, width, 3]."""
    if envs.vector.render_mode == "rgb_array":
        image = rgb(np.asarray(envs.render()[0]), "rendering")
    elif envs.observations.ndim == 4 and envs.observations.dtype == np.uint8:
        image = rgb(envs.observations[0, -1], "rendering")  # Atari's vector environment cannot render
    else:
        raise UserError("rendering: this environment cannot render images")
    factor = -(-SMALLEST // min(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else image
