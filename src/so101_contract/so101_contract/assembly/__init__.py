# SPDX-License-Identifier: Apache-2.0
"""From messages to transitions: the same assembler runs in the live learner, in the policy and over bags.

Transition k is the observation of step k, the action executed for step k, the reward and flags that step
k + 1 carries, and the observation of step k + 1. The observation of a step is made of exactly the joint and
image messages whose stamps the steps k-T+1 .. k of the same episode name, so it is bit-identical wherever it
is rebuilt.

Messages may come in any order, twice, late or never; the outcome is the same for every order, as long as no
message is later than the limits on memory allow. A step whose inputs are missing gives no transition and is
counted by reason. A frame that is lost takes with it the transitions whose stacks need it, no more: T + 1 of
them at most in the middle of an episode.
"""

from so101_contract.assembly.assembler import Assembler
from so101_contract.assembly.episode import OpenEpisode, StateOf

__all__ = ['Assembler', 'OpenEpisode', 'StateOf']
