"""What somebody has given the node as parameters, looked at before it is lost without a word.

rcl drops a parameter that the node does not declare, and launch goes on without a file that is not
there: a car then drives with defaults.  Here both become errors that name the near match.  Needs
no ROS: the launch file and the node ask the same questions.
"""

import difflib
from pathlib import Path

# How alike two names must be for one to be the other misspelt, 0..1.
ALIKE = 0.75
QOS_OVERRIDES = 'qos_overrides.'


def near_match(name, known):
    """The one of `known` that `name` is a misspelling of; None where none is near."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=ALIKE)
    return found[0] if found else None


def check_params_file(path):
    """Path of a parameter file.  Raises FileNotFoundError that names a file of a like name."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise FileNotFoundError(
            f'the parameter file {path} is a directory; name one of the YAML files in it.'
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f'the parameter file {path} is not there: there is no directory {path.parent}.'
        )
    beside = sorted(one.name for one in path.parent.iterdir() if one.suffix in ('.yaml', '.yml'))
    near = near_match(path.name, beside)
    if near:
        advice = f'Did you mean {path.parent / near}?'
    else:
        advice = f'YAML files in {path.parent.resolve()}: {", ".join(beside) or "none"}.'
    raise FileNotFoundError(f'the parameter file {path} is not there. {advice}')


def params_files(arguments):
    """The files that a command line names after `--params-file`."""
    return [value for option, value in zip(arguments, arguments[1:]) if option == '--params-file']


def check_names(given, known):
    """Names in `given` that are nothing of this node, sorted: somebody else's, not misspelt.

    Raises ValueError where one of them is near a parameter of the node.
    """
    foreign = sorted(
        name for name in given if name not in known and not name.startswith(QOS_OVERRIDES)
    )
    misspelt = {name: near_match(name, known) for name in foreign}
    wrong = [f'"{name}" (did you mean {near}?)' for name, near in misspelt.items() if near]
    if wrong:
        raise ValueError(
            f'unknown parameter {", ".join(wrong)}. `perception_node --help` lists them all.'
        )
    return foreign
