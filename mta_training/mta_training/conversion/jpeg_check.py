"""Is a file a whole JPEG of the size that the tables say?  Looks at markers, decodes nothing."""

from mta_training.conversion.table_fields import MOST_MB, DatasetError

# Start-of-frame markers (ITU T.81 table B.1): C0 to CF without DHT (C4), JPG (C8) and DAC (CC).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class LostImage(DatasetError):
    """An image that the tables name is not there, or is not whole."""


def read_jpeg(path, width, height):
    """Bytes of a JPEG; raises LostImage naming the file unless it is whole and so large."""
    try:
        if path.exists() and not path.is_file():
            raise LostImage(f'{path} is a folder, pipe or device, expected a JPEG file.')
        with open(path, 'rb') as file:
            jpeg = file.read((MOST_MB << 20) + 1)
    except FileNotFoundError:
        raise LostImage(
            f'{path} is missing, but the tables name it. Unpack the images again, '
            'or leave its scene out (--scene).'
        ) from None
    except OSError as error:  # no permission, a folder, a bad sector
        raise LostImage(f'{path} cannot be read: {error.strerror or error}.') from error
    if len(jpeg) > MOST_MB << 20:
        raise LostImage(f'{path} has more than {MOST_MB} MB, which is no camera image.')
    # Some encoders pad the file with zeros after the end-of-image marker.
    if not jpeg.startswith(b'\xff\xd8') or not jpeg.rstrip(b'\0').endswith(b'\xff\xd9'):
        raise LostImage(
            f'{path} is no whole JPEG ({len(jpeg)} bytes; it should begin with '
            'ff d8 and end with ff d9). Unpack the images again.'
        )
    found = frame_size(jpeg)
    if found != (width, height):
        seen = 'has no frame header' if found is None else f'is {found[0]}x{found[1]} pixels'
        raise LostImage(
            f'{path} {seen}, but sample_data says {width}x{height}. Unpack the '
            'images again, or mend the table.'
        )
    return jpeg


def frame_size(jpeg):
    """(width, height) [px] of the frame header, None where there is none."""
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _START_OF_FRAME:
            return (
                int.from_bytes(jpeg[at + 7 : at + 9], 'big'),
                int.from_bytes(jpeg[at + 5 : at + 7], 'big'),
            )
        else:
            at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], 'big')
    return None
