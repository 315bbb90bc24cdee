# SPDX-License-Identifier: Apache-2.0
"""The agents. The whole update of each reads off its own file, from the batch that it is given to its metrics.

| `agent:=` | module | what it is |
|---|---|---|
| hil | `hil` | DrQ-v2's actor and encoder with RLPD's critics, as HIL-SERL learns beside a human; the default |
| hil_on_base | `on_base` | hil on top of a base policy: IBRL's choice, or a residual; what `base:=` makes of hil |
| faithful | `drqv2` | DrQ-v2 as RoboBase has it, number for number: goes on with its checkpoints |
| sac | `sac` | soft actor-critic with HIL-SERL's settings, to compare with |
| bc | `bc` | behaviour cloning: imitates demonstrations and takeovers, a baseline and a policy to begin with |

`common` makes an agent by its name, and has what all three are built of: noise, optimisers, saved state.
"""

__all__ = ['bc', 'common', 'drqv2', 'hil', 'on_base', 'sac']
