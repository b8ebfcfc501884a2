"""YAML that comes from elsewhere: read as data, of a bounded size.

A few hundred bytes of YAML can stand for gigabytes, because an alias repeats what it names.
"""

from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 4 << 20
MOST_VALUES = 200_000  # aliases counted as what they stand for


class YamlError(ValueError):
    """A file is no YAML that can be read; the message is one line and names it."""


def read_yaml(path: str | Path) -> Any:
    """The values in a YAML file: mappings, lists, texts, numbers.  Raises YamlError."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise YamlError(f'{path} is a folder, pipe or device, expected a YAML file.')
        with open(path, 'rb') as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise YamlError(f'{path} cannot be read: {error.strerror or error}.') from None
    if len(content) > MOST_BYTES:
        raise YamlError(f'{path} has more than {MOST_BYTES >> 20} MB, which is no settings file.')
    try:
        return parse_yaml(content.decode('utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise YamlError(f'{path} is no YAML that can be read: {reason}.') from None


def parse_yaml(text: str) -> Any:
    """The values in a text.  Raises yaml.YAMLError, ValueError."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        size = _size(node, {})
        if size > MOST_VALUES:
            raise ValueError(f'aliases make more than {MOST_VALUES} values of it')
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError('it is nested too deeply') from None
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node, aliases counted as often as they occur."""
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError('an alias names what it is part of')
        return known[id(node)]
    known[id(node)] = 0  # being counted
    children = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]
