"""The offline side: synthetic world, conversion, training, evaluation, export."""

import mta_perception  # noqa: F401  sets a sourced ROS aside before anything else is imported
