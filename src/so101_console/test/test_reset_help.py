# SPDX-License-Identifier: Apache-2.0
"""How the scene was at the start, shown while a human is asked to make it so again."""

from so101_console.scene.drawings import ResetHelp
from so101_contract.session import EventKind


class Camera:
    def __init__(self, *pictures):
        self.pictures = list(pictures)

    def jpeg(self, newer_than):
        return (1, self.pictures.pop(0)) if self.pictures else None


def test_the_pictures_of_the_last_start_stay_until_the_next_one():
    help_ = ResetHelp({'wrist': Camera(b'one', b'two'), 'front': Camera()})
    assert help_.picture(0) == b''
    help_.hear(EventKind.START, 3)
    help_.hear(EventKind.FAILURE, 3)
    assert (help_.picture(0), help_.picture(1), help_.picture(2)) == (b'one', b'', b'')
    help_.hear(EventKind.START, 4)
    assert help_.picture(0) == b'two'


def test_it_is_shown_from_when_a_human_is_asked_until_that_is_over():
    help_ = ResetHelp({'wrist': Camera(b'one')})
    help_.hear(EventKind.START, 3)
    assert help_.said('x') is None
    help_.hear(EventKind.NEED_RESET, 0)
    told = {'said': 'put it back', 'episode': 3, 'pictures': [True]}
    assert help_.said('put it back') == told
    help_.hear(EventKind.SUCCESS, 3)  # a late label changes nothing
    assert help_.said('put it back') == told
    help_.hear(EventKind.NEED_OVER, 0)
    assert help_.said('x') is None
