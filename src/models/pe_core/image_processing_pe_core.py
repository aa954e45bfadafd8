"""Image processor of PE core: `core/vision_encoder/transforms.py` of perception_models (3e352cca)."""

from transformers.image_processing_backends import PilBackend
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, PILImageResampling


class PeCoreImageProcessor(PilBackend):
    """Resizes images with Pillow to the model's size, whatever their aspect ratio, and scales values to -1…1.

    `processor(images, return_tensors="pt")` gives `pixel_values`, float32 (images, channels, height, width).

    Args:
        size: a dict with `height` and `width`, 336 each by default.

    All other arguments are those of transformers' image processors.
    """

    do_convert_rgb = True
    do_resize = True
    size = {"height": 336, "width": 336}
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    do_normalize = True
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD


__all__ = ["PeCoreImageProcessor"]
