"""What a constant difference between two clocks says about them.  Stamps in nanoseconds."""

_LEAST_S = 1.0  # below, messages are late and no clock is wrong
_SAME_S = 2.0  # how well a known difference is met
_KNOWN_S = (
    (37.0, 'that of TAI and UTC: a PTP clock that nobody told of the leap seconds'),
    (18.0, 'that of GPS time and UTC'),
    (19.0, 'that of TAI and GPS time'),
)
_SINCE_BOOT_S = 3e8  # ten years: below, a stamp counts from the start of a machine
_DAY_S = 86_400.0


def clock_words(image_ns: int, odometry_ns: int) -> str:
    """In which way the clocks of images and odometry differ, '' where they do not.

    odometry_ns  its newest stamp, as the image is looked at
    """
    off_s = (image_ns - odometry_ns) / 1e9
    size_s = abs(off_s)
    if size_s < _LEAST_S:
        return ''
    words = (
        f'the images are stamped {size_s:.3f} s {"ahead of" if off_s > 0 else "behind"} the '
        'newest odometry'
    )
    slow, name = (image_ns, 'images') if image_ns < odometry_ns else (odometry_ns, 'odometry')
    if slow / 1e9 < _SINCE_BOOT_S < (slow / 1e9) + size_s:
        return (
            f'{words}: the {name} count from the start of a machine (a monotonic clock), the '
            'other has the time of day'
        )
    for known_s, meaning in _KNOWN_S:
        if abs(size_s - known_s) < _SAME_S / 2:
            return f'{words}: nearly {known_s:g} s, {meaning}'
    zone_s = round(size_s / 1800) * 1800
    if zone_s and zone_s <= 14 * 3600 and abs(size_s - zone_s) < _SAME_S:
        return f'{words}: nearly {zone_s / 3600:g} h, a time zone'
    if size_s > _DAY_S:
        return f'{words}: one of them is of a recording (use_sim_time, or play both from one bag)'
    return f'{words}: their clocks differ'
