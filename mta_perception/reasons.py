"""Why something was refused: one code to count by, and a text for people.

A Reason is made where an image, a camera, a frame, a pose or the memory is refused, and goes as
it is into diagnostics, logs, ~/history and summary.json.  What counts or decides reads the code;
the detail is only ever shown.  A code's value is the key that users see; docs/reasons.md lists all
of them.
"""

from enum import Enum
from typing import NamedTuple


class Code(str, Enum):
    """Every reason there is; the values are stable."""

    # An image cannot be read.
    CORRUPT_IMAGE = 'corrupt image'
    TRUNCATED_IMAGE = 'truncated image'
    WRONG_IMAGE_SIZE = 'wrong image size'
    UNKNOWN_ENCODING = 'unknown encoding'
    IMPOSSIBLE_IMAGE = 'impossible image'

    # An image belongs to no frame set, or a frame set has no image of a camera.
    DUPLICATE_IMAGE = 'duplicate'
    LATE = 'late'
    SURPLUS = 'surplus'
    SPREAD = 'spread'
    CLOCK_OFF = 'clock off'
    STAMP_STANDS = 'stamp stands still'
    BEFORE_FIRST_SET = 'before the first whole set'
    SYNC_RESET = 'reset'
    NO_IMAGE_YET = 'no image yet'
    NO_IMAGE = 'no image'
    NEW_CAMERA = 'new camera'
    FROZEN = 'frozen'
    SKIPPED_ROUND = 'skipped this round'
    SLOWER = 'slower than the others'

    # A camera cannot be placed.
    NO_CAMERA_INFO = 'no camera_info'
    NO_TRANSFORM = 'no transform'
    NO_CALIBRATION = 'no calibration'
    IMPOSSIBLE_CALIBRATION = 'impossible calibration'
    UNKNOWN_DISTORTION = 'unknown distortion'
    BODY_FRAME = 'not an optical frame'
    CALIBRATION_CHANGED = 'calibration changed'
    OUT_OF_PLACE = 'camera out of place'
    WRONG_TRANSPORT = 'wrong transport'

    # A pose or a transform is refused.
    DUPLICATE_STAMP = 'duplicate stamp'
    STAMP_OUT_OF_ORDER = 'stamp out of order'
    POSE_NOT_FINITE = 'pose is not finite'
    POSE_NOT_RIGID = 'pose is not a rotation and a translation'
    QUATERNION_LENGTH = 'quaternion is not of length 1'
    SAME_FRAMES = 'frame names are empty or equal'
    ODOMETRY_FRAME = 'odometry of an unknown frame'

    # A frame set has no pose, or too little else.
    NO_ODOMETRY = 'no odometry'
    ODOMETRY_TOO_OLD = 'odometry too old'
    STAMP_BEFORE_ODOMETRY = 'stamp before odometry'
    GAP_IN_ODOMETRY = 'gap in odometry'
    TOO_FEW_CAMERAS = 'too few cameras'
    OVERTAKEN = 'overtaken by a newer frame'
    OUTPUT_NOT_FINITE = 'network output not finite'

    # What was remembered no longer holds.
    CLOCK_JUMPED_BACK = 'clock jumped back'
    CLOCK_JUMPED_FORWARD = 'clock jumped forward'
    ODOMETRY_CLOCK_JUMPED_BACK = 'odometry clock jumped back'
    RECEIVE_CLOCK_RAN_BACK = 'receive clock ran back'
    POSE_JUMPED = 'pose jumped'
    GAP_BETWEEN_FRAMES = 'gap between frames'
    RESET_REQUESTED = 'asked for by ~/reset_history'

    # A question is not answered.
    NOT_RUNNING = 'node is not running'
    NO_TASK_HEADS = 'no task heads'
    NO_QUESTION = 'no question'
    QUESTION_TOO_LONG = 'question too long'
    CONTROL_CHARACTERS = 'control characters'
    UNKNOWN_WORDS = 'unknown words'
    UNSURE = 'not sure of its own words'
    NOTHING_REMEMBERED = 'nothing remembered'
    NO_FRESH_FRAME = 'no fresh frame'
    ASKED_MEANWHILE = 'busy with another question'
    DEADLINE_PASSED = 'deadline passed'
    ASKING_FAILED = 'asking failed'

    def __str__(self) -> str:
        return self.value


UNREADABLE_IMAGE = frozenset(
    {
        Code.CORRUPT_IMAGE,
        Code.TRUNCATED_IMAGE,
        Code.WRONG_IMAGE_SIZE,
        Code.UNKNOWN_ENCODING,
        Code.IMPOSSIBLE_IMAGE,
    }
)


class Reason(NamedTuple):
    """Why this one was refused."""

    code: Code
    detail: str = ''  # for people: what came, what was expected, what to do

    def __str__(self) -> str:
        return f'{self.code}: {self.detail}' if self.detail else self.code.value


class Refused(ValueError):
    """Something cannot be used; `reason` says why."""

    def __init__(self, code: Code, detail: str = '') -> None:
        super().__init__(code, detail)
        self.reason = Reason(code, detail)

    def __str__(self) -> str:
        return str(self.reason)
