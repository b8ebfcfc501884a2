"""The SROS 2 policy lists what the node hears and says, no more and no less."""

from pathlib import Path
import xml.etree.ElementTree as Xml

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from ros_car import Car, start_node

from mta_perception.commands.processes import free_domain
from mta_perception.contract import CAMERAS

POLICY = Path(__file__).resolve().parents[1] / 'params' / 'sros2_policy.xml'


def allowed():
    """{subscribe, publish, reply: set of names} of the only profile."""
    (profile,) = Xml.parse(POLICY).getroot().iter('profile')
    assert (profile.get('ns'), profile.get('node')) == ('/', 'mta_perception')
    found = {}
    for group in profile:
        (kind,) = group.keys()
        assert group.get(kind) == 'ALLOW'
        names = [entry.text for entry in group]
        assert len(names) == len(set(names))
        found[kind] = set(names)
    return found


def test_the_policy_is_what_a_running_node_does(tmp_path):
    domain = free_domain()
    with start_node(tmp_path, domain):
        car = Car(domain)
        try:
            car.listen_to_node()
            car.wait_for_node()
            live = {
                kind: {name for name, _ in ask('mta_perception', '/')}
                for kind, ask in (
                    ('subscribe', car.node.get_subscriber_names_and_types_by_node),
                    ('publish', car.node.get_publisher_names_and_types_by_node),
                    ('reply', car.node.get_service_names_and_types_by_node),
                )
            }
        finally:
            car.close()
    listed = allowed()
    assert live['publish'] == listed['publish'] and live['reply'] == listed['reply']
    # The other transport, and /clock of use_sim_time.
    others = {'/clock', *(f'/{camera}/image_raw' for camera in CAMERAS)}
    assert listed['subscribe'] - live['subscribe'] == others
    assert not live['subscribe'] - listed['subscribe']
