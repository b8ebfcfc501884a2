"""The quality of service that a bag offers for a topic: with it a replay publishes again."""

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

_FOREVER = QosTime(sec=2147483647, nsec=4294967295)


def offered_qos(depth: int, *, reliable: bool = True, latched: bool = False) -> Qos:
    """Keep-last profile without deadlines; latched: also who comes later gets the last ones."""
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )
