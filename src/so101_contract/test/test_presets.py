# SPDX-License-Identifier: Apache-2.0
import pytest

from so101_contract.errors import ObservationError
from so101_contract.observation_spec import (
    DEFAULT_OBSERVATION,
    get_observation,
    OBSERVATIONS,
    ObservationSpec,
    robobase_spec,
)


def test_every_named_observation_can_be_measured_by_an_arm():
    for name in OBSERVATIONS:
        get_observation(name).require_deployable()


def test_names_mean_what_they_say():
    assert get_observation('robobase') == robobase_spec()
    assert get_observation('full') == ObservationSpec()
    assert 'tcp_euler' not in get_observation(DEFAULT_OBSERVATION).block_names
    assert get_observation(DEFAULT_OBSERVATION).state_size == 15


def test_tcp_and_camera_are_said_on_top():
    spec = get_observation('compact', tcp='pick101', camera_preset='pick101')
    assert (spec.tcp, spec.camera_preset) == ('pick101', 'pick101')
    assert spec.hash != get_observation('compact').hash


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ObservationError, match=r"\['compact', 'full', 'robobase'\], got 'tiny'"):
        get_observation('tiny')
