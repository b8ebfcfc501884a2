"""From the name of a ROS type to its Python class: what player and recorder need of a topic."""

from importlib import import_module
import re

from mta_perception.foreign_text import shown

_NAME = re.compile(r'([a-zA-Z]\w*)/msg/([a-zA-Z]\w*)')


def message_class(type_name):
    """The rclpy class of `package/msg/Type`.  Raises RuntimeError where it is not installed."""
    name = _NAME.fullmatch(type_name)
    if name is None:
        raise RuntimeError(f'{shown(type_name)} is no name of a message, as package/msg/Type.')
    package, message = name.groups()
    try:
        return getattr(import_module(f'{package}.msg'), message)
    except (ImportError, AttributeError) as error:
        what = 'the interface package' if isinstance(error, ImportError) else f'{message} in'
        raise RuntimeError(
            f'{type_name} is not known: {what} {package} is not installed here. Run `make env`, '
            'or source the workspace that has it.'
        ) from error
