"""Flow from files: Middlebury's .flo and NumPy's .npy.

    ROOT/NAME.flo or ROOT/NAME.npy      for each frame, where its content was in the frame before

.flo: the float 202021.25, width, height (int32), then rows of (x, y) as float32, all little-endian.
.npy: (2, H, W) or (H, W, 2) of floats, half precision too.
"""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from ..ops.warp import resize_flow

TAG = np.float32(202021.25)
HEADER = 12  # bytes
UNKNOWN = 1e9  # Middlebury's mark: a larger value stands for "not known"
ENDINGS = (".flo", ".npy")


class FlowFolder:
    """The flow files of a folder, by the names of frames."""

    def __init__(self, root: str | Path):
        """FileNotFoundError where there is no such folder."""
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"there is no folder of flow at {self.root}")

    def find(self, name: str) -> Path | None:
        """The file of the frame `name` (without an ending, with folders below the root)."""
        for ending in ENDINGS:
            path = self.root / f"{name}{ending}"
            if path.is_file():
                return path
        return None

    def __call__(self, name: str, size: tuple[int, int]) -> Tensor:
        """The flow of a frame -> (2, *size) float32, in pixels of a frame of that size.

        Files of another size are taken to be in their own pixels; unknown flow becomes 0.
        FileNotFoundError where the frame has no file, ValueError where that is damaged.
        """
        path = self.find(name)
        if path is None:
            expected = " or ".join(f"{name}{ending}" for ending in ENDINGS)
            raise FileNotFoundError(f"{self.root} holds no flow of the frame {name}: {expected}")
        flow = torch.from_numpy(read_flow(path))
        known = flow.abs().amax(0) <= UNKNOWN
        return resize_flow((flow * known)[None], size, cells_of=flow.shape[-2:])[0]


def read_flow(path: str | Path) -> np.ndarray:
    """A .flo or .npy file -> flow (2, H, W) float32. ValueError, naming the file, for any other."""
    path = Path(path)
    if path.suffix == ".npy":
        return read_npy(path)
    return read_flo(path)


def read_flo(path: str | Path) -> np.ndarray:
    """A .flo file -> flow (2, H, W) float32."""
    data = Path(path).read_bytes()
    if len(data) < HEADER or np.frombuffer(data, "<f4", 1)[0] != TAG:
        raise ValueError(
            f"{path} is no .flo file: it does not begin with {float(TAG)}; write it with "
            "Middlebury's tools"
        )
    width, height = (int(side) for side in np.frombuffer(data, "<i4", 2, offset=4))
    expected = HEADER + 8 * width * height
    if width < 1 or height < 1 or len(data) != expected:
        raise ValueError(
            f"{path} is damaged: flow of {width}x{height} takes {expected} bytes, the file has "
            f"{len(data)}; copy it again"
        )
    values = np.frombuffer(data, "<f4", offset=HEADER).reshape(height, width, 2)
    return checked(values.transpose(2, 0, 1), path)


def read_npy(path: str | Path) -> np.ndarray:
    """A .npy file -> flow (2, H, W) float32."""
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise
    # A damaged file can raise any kind of error.
    except Exception as error:
        raise ValueError(f"{path} is damaged or no .npy file: copy it again") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        kind = getattr(values, "dtype", type(values).__name__)
        raise ValueError(f"{path} holds {kind}, expected flow as floats")
    if values.ndim == 3 and values.size and 2 in (values.shape[0], values.shape[2]):
        # Where both fit, channels come first.
        first = values.shape[0] == 2
        return checked(values if first else values.transpose(2, 0, 1), path)
    raise ValueError(f"{path} is {list(values.shape)}, expected flow [2, H, W] or [H, W, 2]")


def checked(flow: np.ndarray, path: str | Path) -> np.ndarray:
    """flow as float32 in memory of its own; ValueError where it is not finite."""
    flow = np.array(flow, np.float32, order="C")
    wrong = flow.size - np.isfinite(flow).sum()
    if wrong:
        raise ValueError(f"{path} holds {wrong} values that are NaN or infinite: compute it again")
    return flow


def write_flow(path: str | Path, flow: np.ndarray | Tensor) -> None:
    """Write flow (2, H, W) as its ending says, .npy in half precision; whole or not at all."""
    path = Path(path)
    if path.suffix == ".npy":
        write_npy(path, flow)
    else:
        write_flo(path, flow)


def rounded(flow: np.ndarray, ending: str) -> np.ndarray:
    """What is read of flow once it was written with this ending, float32."""
    values = flow.astype(np.float32)
    if ending == ".npy":
        # Too large for half precision becomes infinite.
        with np.errstate(over="ignore"):
            values = values.astype(np.float16).astype(np.float32)
    return values


def write_npy(path: str | Path, flow: np.ndarray | Tensor) -> None:
    """Write flow (2, H, W) in half precision, whole or not at all."""
    file = io.BytesIO()
    np.save(file, np.asarray(flow, dtype="<f2"))
    write_whole(Path(path), file.getvalue())


def write_flo(path: str | Path, flow: np.ndarray | Tensor) -> None:
    """Write flow (2, H, W) as a .flo file, whole or not at all."""
    values = np.asarray(flow, dtype="<f4")
    if values.ndim != 3 or values.shape[0] != 2 or not values.size:
        raise ValueError(f"a .flo file holds flow (2, H, W), got {values.shape}")
    height, width = values.shape[1:]
    header = TAG.astype("<f4").tobytes() + np.array([width, height], "<i4").tobytes()
    write_whole(Path(path), header + values.transpose(1, 2, 0).tobytes())


def write_whole(path: Path, data: bytes) -> None:
    """The file in one step: others see it whole or not at all."""
    # A name of its own: two processes may write the same file at the same time.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
