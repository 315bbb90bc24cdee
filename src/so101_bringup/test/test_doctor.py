# SPDX-License-Identifier: Apache-2.0
import pytest

pytest.importorskip('rclpy')

from so101_bringup.doctor import check_dds, Delivery, judge
from so101_driver.doctor.checks import Status


@pytest.mark.parametrize(
    ('arrived', 'status'), [(90, Status.OK), (60, Status.WARN), (0, Status.FAIL)], ids=['all', 'some', 'none']
)
def test_lost_images_are_worth_a_sentence(arrived, status):
    check = judge(Delivery(90, arrived, 0.002, 0.003))
    assert check.status is status
    assert f'{arrived} of 90' in check.finding
    assert bool(check.remedy) == (status is not Status.OK)


def test_a_missing_profile_is_named(monkeypatch):
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', '/nowhere.xml')
    assert 'config/fastdds.xml' in judge(Delivery(90, 10, 0.002, 0.003)).remedy


def test_dds_works_here():
    assert check_dds().status is not Status.FAIL
