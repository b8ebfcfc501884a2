"""The vehicle side: six cameras in, 3D boxes and sentences about them out."""

from mta_perception.sourced_ros import set_aside

set_aside()
