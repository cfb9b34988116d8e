"""Videos: a few frames of each, as images in their order."""

import io
from collections.abc import Iterator

import av
from av.container import InputContainer
from PIL import Image

from vlm_ops.config.pictures import VideoSettings
from vlm_ops.data.decoding import MAX_PIXELS, ImageRefused
from vlm_ops.errors import Interrupted

_EXPECTED = "expected a video file that decodes to its end (MP4, WebM, MKV, MOV, AVI, GIF)"
_WHAT = "damaged video"
MAX_FRAMES = 36_000
"""Most frames that are decoded of a video: 20 minutes at 30 a second."""
_FORMATS = "mov,mp4,matroska,webm,avi,gif,mpegts,mpeg,ogg,flv,asf"
"""FFmpeg's names of what is read. Playlists are none of them: they name files and addresses that
nobody asked for."""
_WHOLE = 0.9
"""Share of the frames that the header promises, below which a video was cut off."""


def frames(data: bytes, settings: VideoSettings) -> list[bytes]:
    """Take frames of a video, evenly over its length.

    Each of the parts of equal length that it is divided into gives its middle frame.

    Args:
        data: The bytes of a video file.
        settings: How many frames, or how many a second and at most how many.

    Returns:
        PNG files, in the order of the frames; as many as the video has where it has fewer.

    Raises:
        ImageRefused: The bytes are no video, are damaged, or hold no frame.
    """
    try:
        total, rate = _counted(data)
        count = settings.frames
        if settings.fps is not None and rate:
            count = min(count, max(1, round(total / rate * settings.fps)))
        count = min(count, total)
        wanted = {(2 * part + 1) * total // (2 * count) for part in range(count)}
        return [_png(frame) for place, frame in enumerate(_decoded(data)) if place in wanted]
    except (Interrupted, ImageRefused):
        raise
    except (av.error.FFmpegError, ValueError, OSError, IndexError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageRefused(f"a video that can't be decoded ({reason})", _EXPECTED, _WHAT) from error


def _counted(data: bytes) -> tuple[int, float]:
    """Count the frames, which a header may not know, and say how many there are a second."""
    with _opened(data) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        seconds = (container.duration or 0) / av.time_base
        promised = stream.frames or int(seconds * (rate or 0))
    total = sum(1 for _ in _decoded(data))
    if not total:
        raise ImageRefused("a video without a frame", _EXPECTED, _WHAT)
    if total < _WHOLE * promised:
        raise ImageRefused(f"{total} of the {promised} frames of a video", _EXPECTED, _WHAT)
    return total, float(rate or 0)


def _decoded(data: bytes) -> Iterator[av.VideoFrame]:
    with _opened(data) as container:
        for place, frame in enumerate(container.decode(video=0)):
            if place >= MAX_FRAMES:
                raise ImageRefused(
                    f"a video of more than {MAX_FRAMES:,} frames",
                    "expected a shorter one: cut out what the question is about",
                    "long video",
                )
            if frame.width * frame.height > MAX_PIXELS:
                raise ImageRefused(
                    f"a video of {frame.width} x {frame.height} pixels",
                    f"expected at most {MAX_PIXELS // 1_000_000} million",
                    _WHAT,
                )
            yield frame


def _opened(data: bytes) -> InputContainer:
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "pipe"}
    container = av.open(io.BytesIO(data), mode="r", metadata_errors="ignore", options=options)
    if not container.streams.video:
        container.close()
        raise ImageRefused("a file without pictures", _EXPECTED, _WHAT)
    container.streams.video[0].thread_type = "NONE"
    return container


def _png(frame: av.VideoFrame) -> bytes:
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    if frame.rotation:  # how the phone was held: degrees counterclockwise, as Pillow turns
        image = image.rotate(frame.rotation, expand=True)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
