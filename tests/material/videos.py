"""Small videos, each frame of a color of its own."""

import io

import av
from PIL import Image


def video(frames: int = 40, *, red: int = 0, form: str = "mp4", rate: int = 10) -> bytes:
    """Write a video whose frames get greener: frame ``n`` has green ``6 n``."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(frames):
            image = Image.new("RGB", (64, 64), (red, number * 6, 0))
            frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def green(image: Image.Image) -> int:
    """The number of a frame, told by its color."""
    pixel = image.getpixel((32, 32))
    assert isinstance(pixel, tuple)
    return round(pixel[1] / 6)
