"""What a network sees of a camera; the same for every detector.

The image is resized by `scale` and padded right and below with zeros; its bytes enter the network,
which normalises them itself.
"""

from dataclasses import dataclass

from mta_perception.checks import require_counts

# ImageNet's, in the order R, G, B.
RGB_MEAN, RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_STRIDE = 32  # of the coarsest map of a ResNet


@dataclass(frozen=True)
class ImageConfig:
    """Size of the padded image [px] and how much smaller it is than the camera's."""

    width: int = 448
    height: int = 256
    scale: float = 0.28

    def __post_init__(self) -> None:
        require_counts(**{'image.width': self.width, 'image.height': self.height})
        for name in ('width', 'height'):
            value = getattr(self, name)
            if value % _STRIDE:
                raise ValueError(
                    f'image.{name}={value} is not a multiple of {_STRIDE}, the stride of the '
                    f'backbone; choose e.g. {max(_STRIDE, round(value / _STRIDE) * _STRIDE)}.'
                )
        if not 0 < self.scale <= 1:
            raise ValueError(f'image.scale={self.scale} is not in (0, 1].')
