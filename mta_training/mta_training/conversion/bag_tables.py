"""`mta-train inspect`: what is inside a bag, as tables for people.

Not called `inspect`: that name would hide Python's own module from scripts run in this folder.
"""

from collections import Counter
from datetime import datetime, timezone

from rich.console import Console
from rich.table import Table

from mta_perception.bags.scene_bag import SceneBag
from mta_perception.contract import CLASSES


def inspect_bag(path, console=None):
    """Print topics, QoS, duration, scene, objects per class and a caption of a bag.

    Also for bags that a node recorded, which have no scene.  Raises BagError.
    """
    # Redirected output has no width of its own; a table squeezed into 80 columns is no use.
    console = console or Console(width=None if Console().is_terminal else 140, soft_wrap=False)
    bag = SceneBag(path)
    samples = bag.samples if '/nuscenes/sample' in bag.topics else []
    _print_head(console, bag, samples)
    console.print(topic_table(bag))
    if samples:
        console.print(object_table(samples))
        _print_caption(console, samples)


def _print_head(console, bag, samples):
    seconds = (bag.end_ns - bag.start_ns) / 1e9
    size = sum(file.stat().st_size for file in bag.path.iterdir() if file.is_file())
    began = datetime.fromtimestamp(bag.start_ns / 1e9, timezone.utc)
    lines = [('bag', str(bag.path))]
    if samples:
        lines += [
            ('scene', bag.name),
            ('description', bag.description),
            ('split', bag.split or 'none'),
            ('keyframes', str(len(samples))),
        ]
    lines += [
        ('starts', f'{began:%Y-%m-%d %H:%M:%S} UTC'),
        ('duration', f'{seconds:.2f} s'),
        ('messages', str(bag.message_count)),
        ('size', f'{size / 1e6:.1f} MB'),
    ]
    for name, value in lines:
        console.print(f'{name:12}{value}', markup=False, highlight=False)


def topic_table(bag):
    """rich Table: one row a topic."""
    table = Table('topic', 'type', 'count', 'Hz', 'reliability', 'durability', 'depth')
    seconds = (bag.end_ns - bag.start_ns) / 1e9
    for topic, connection in sorted(bag.topics.items()):
        count = connection.msgcount
        rate = f'{(count - 1) / seconds:.1f}' if count > 1 and seconds > 0 else '-'
        profiles = bag.offered_qos(topic)
        offered = (
            [
                profiles[0].reliability.name.lower(),
                profiles[0].durability.name.lower(),
                str(profiles[0].depth),
            ]
            if profiles
            else ['unknown'] * 3
        )
        table.add_row(topic, connection.msgtype, str(count), rate, *offered)
    return table


def object_table(samples):
    """rich Table: boxes, instances and captions of each class, those without points apart."""
    boxes, captions, unseen, instances = Counter(), Counter(), Counter(), {}
    for sample in samples:
        for entry in sample.annotated:
            name = entry['class_name'] or f'({entry["category"]})'
            boxes[name] += 1
            captions[name] += bool(entry['caption'])
            unseen[name] += entry['num_lidar_pts'] + entry['num_radar_pts'] == 0
            instances.setdefault(name, set()).add(entry['instance_token'])
    table = Table('class', 'boxes', 'objects', 'captions', 'without points')
    others = sorted(name for name in boxes if name not in CLASSES)
    for name in [name for name in CLASSES if boxes[name]] + others:
        table.add_row(
            name, *map(str, (boxes[name], len(instances[name]), captions[name], unseen[name]))
        )
    return table


def _print_caption(console, samples):
    told = [
        (sample, row) for sample in samples for row, text in enumerate(sample.captions) if text
    ]
    if not told:
        console.print('no captions')
        return
    sample, row = told[len(told) // 2]
    console.print(
        f'a caption   {CLASSES[sample.labels[row]]}: {sample.captions[row]}',
        markup=False,
        highlight=False,
    )
