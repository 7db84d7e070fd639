"""Many small images as one."""

import io

import numpy as np

COLUMNS = 8
GAP = 2  # pixels between two images
SIDE = 64  # pixels to which smaller images are enlarged, each pixel by a whole number


def contact_sheet(pixels: np.ndarray) -> bytes:
    """Images uint8 (n, height, width, channels), row by row, as the bytes of a PNG file."""
    from PIL import Image

    images, height, width, channels = pixels.shape
    factor = max(1, SIDE // max(height, width))
    enlarged = pixels.repeat(factor, 1).repeat(factor, 2)
    tall, wide = (side * factor + GAP for side in (height, width))
    rows = -(-images // COLUMNS)
    sheet = np.full((rows * tall - GAP, min(images, COLUMNS) * wide - GAP, channels), 255, np.uint8)
    for place, image in enumerate(enlarged):
        top, left = place // COLUMNS * tall, place % COLUMNS * wide
        sheet[top : top + tall - GAP, left : left + wide - GAP] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet).save(buffer, "png")
    return buffer.getvalue()
