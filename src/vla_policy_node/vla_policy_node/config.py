# SPDX-License-Identifier: Apache-2.0
"""Parameters of vla_policy_node."""

from dataclasses import dataclass

from drqv2_policy_node.answering import Mode
from drqv2_policy_node.config import AnsweringConfig
from so101_driver.calibration.files import find_calibration
from so101_driver.calibration.lerobot_units import JointScale, UNITS
from so101_interfaces_py.params import check_bounds, live_param, param, ParameterError
from vla_policy_node.chunks import Pace, Plausibility
from vla_policy_node.zmtp import Address


@dataclass(frozen=True, kw_only=True)
class VlaPolicyNodeConfig(AnsweringConfig):
    """Through which server a policy acts, what its numbers mean, and how its chunks are used."""

    mode: str = live_param(
        'eval',
        doc='hold: answer nothing. eval: what the server says.',
        choices=(Mode.HOLD.value, Mode.EVAL.value),
    )
    server: str = param('tcp://127.0.0.1:5555', doc='Where the policy server listens.')
    token: str = param('', doc='What the server is given as api_token; empty: nothing.')
    units: str = param(
        '',
        doc="Of the joints in the training's data, which no server says: degrees or range (-100..100) of LeRobot, or "
        'rad. Has to be said.',
        choices=('', *UNITS),
    )
    calibration: str = param(
        'none',
        doc="Calibration file of the arm, for range and for the gripper's travel; none: the model's; empty: the only "
        'one in ~/.config/so101/calibration.',
    )
    as_base: bool = param(
        False,
        doc='Say what a base policy says, to policy_node that acts on top of it, and not to the session.',
    )
    instruction: str = live_param(
        '', doc='What the policy is told to do, in words; policy/instruction changes it.'
    )
    cameras: tuple[str, ...] = param(
        ('',),
        doc="Which camera is which, as SERVER=OURS, for example front=gripper_cam; not needed where there's one each.",
    )
    chunk_rate_hz: float = param(
        30.0,
        doc="Entries of a chunk in a second: the rate of the training's data.",
        unit='Hz',
        lo=1.0,
        hi=200.0,
    )
    replan_entries: int = param(
        8, doc='After so many entries of a chunk the next one shall be in use.', lo=1, hi=64
    )
    use_entries: int = param(
        16,
        doc='So many entries of a chunk may be used; those after replan_entries are a reserve.',
        lo=2,
        hi=64,
    )
    blend_s: float = param(0.1, doc='Time in which a new chunk takes over.', unit='s', lo=0.0, hi=2.0)
    timeout_s: float = param(2.0, doc='Longest wait for an answer of the server.', unit='s', lo=0.05, hi=60.0)
    max_first_rad: float = param(
        0.35,
        doc='A chunk whose first target is further than this from a joint is refused.',
        unit='rad',
        lo=0.02,
        hi=3.2,
    )
    max_jump_rad: float = param(
        0.35,
        doc='So is one with two neighbouring targets that are further apart.',
        unit='rad',
        lo=0.02,
        hi=3.2,
    )

    def __post_init__(self) -> None:
        """Check each value, and those that depend on each other."""
        check_bounds(self)
        Address.parse(self.server)
        if self.replan_entries > self.use_entries:
            raise ParameterError(
                f'replan_entries = {self.replan_entries} is above use_entries = {self.use_entries}.'
            )
        self.camera_map()

    def camera_map(self) -> dict[str, str]:
        """Return the server's name of each camera that is named, and ours."""
        found: dict[str, str] = {}
        for entry in filter(None, self.cameras):
            server, separator, ours = entry.partition('=')
            if not separator or not server or not ours or server in found:
                raise ParameterError(
                    f'cameras has {entry!r}; expected SERVER=OURS, each of the server once, for example '
                    f'front=gripper_cam.'
                )
            found[server] = ours
        return found

    def scale(self) -> JointScale:
        """Return what the server's numbers mean.

        Raises:
            ParameterError: nobody has said it.
            CalibrationError: there is no such calibration.
        """
        if not self.units:
            raise ParameterError(
                "expected units:= of the joints in the training's data, got none, and no server says them: degrees "
                '(LeRobot since 0.4.4), range (-100..100, LeRobot before) or rad.'
            )
        known = None if self.calibration == 'none' else find_calibration(self.calibration)
        return JointScale(self.units, known)

    def plausibility(self) -> Plausibility:
        """Return what a chunk may ask for."""
        return Plausibility(scale=self.scale(), first_rad=self.max_first_rad, jump_rad=self.max_jump_rad)

    def pace(self) -> Pace:
        """Return how chunks are used."""
        return Pace(
            period_ns=round(1e9 / self.chunk_rate_hz),
            replan=self.replan_entries,
            use=self.use_entries,
            blend_ns=round(self.blend_s * 1e9),
            step_ns=round(1e9 / self.control_rate_hz),
        )
