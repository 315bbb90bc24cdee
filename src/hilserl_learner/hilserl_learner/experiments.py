# SPDX-License-Identifier: Apache-2.0
"""The runs behind docs/results.md, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

LIFT, PLACE = 'SO101Lift-v0', 'SO101Place-v0'


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One kind of run.

    Attributes:
        name: short; names directories and files.
        says: what it is, for the table.
        steps: environment steps.
        options: arguments of `so101 train` by name, without dashes.
        values: what is given with --set.
        begins_with: another experiment, whose best policy of the same seed it begins with; empty for none.
        figure: the picture that its curves are in.
        seeds: how many there are.
    """

    name: str
    says: str
    steps: int
    options: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    begins_with: str = ''
    figure: str
    seeds: int = 3

    def arguments(self, seed: int, out: str, policy: str = '') -> list[str]:
        """Return the arguments of `so101 train` for one seed."""
        words = ['--steps', str(self.steps), '--seed', str(seed), '--out', out]
        for name, value in {'demos': '5', **self.options}.items():
            words += [f'--{name}', value]
        for name, value in self.values.items():
            words += ['--set', f'{name}={value}']
        return [*words, '--policy', policy] if policy else words


OFTEN, MANY = {'eval_every': '500'}, {'eval_episodes': '40'}

EXPERIMENTS = (
    Experiment(
        name='easy', says='lift, easy, 5 demonstrations, operator', steps=6000, values=OFTEN, figure='lift'
    ),
    Experiment(
        name='wide',
        says='lift, wide, 5 demonstrations, operator, any table and light',
        steps=9000,
        options={'preset': 'wide'},
        values={'table_randomization': '0.75', 'color_jitter': '1'},
        figure='lift',
    ),
    Experiment(
        name='wide_light',
        says='lift, wide, 5 demonstrations, operator, any light',
        steps=9000,
        options={'preset': 'wide'},
        values={'color_jitter': '1'},
        figure='lift',
    ),
    Experiment(
        name='place',
        says='place, easy, 5 demonstrations, operator',
        steps=4000,
        options={'env': PLACE},
        figure='place',
    ),
    Experiment(
        name='gap_scratch',
        says='lift, gap, from nothing',
        steps=8000,
        options={'preset': 'gap'},
        values=MANY,
        figure='gap',
    ),
    Experiment(
        name='gap_tuned',
        says='lift, gap, begins with the policy of wide',
        steps=8000,
        options={'preset': 'gap'},
        values=MANY,
        begins_with='wide',
        figure='gap',
    ),
    Experiment(
        name='gap_shipped',
        says='lift, gap, begins with the policy that is shipped',
        steps=6500,
        options={'preset': 'gap', 'policy': 'default'},
        values=MANY,
        figure='gap',
    ),
    Experiment(
        name='no_demos',
        says='lift, easy, no demonstrations, operator',
        steps=3000,
        options={'demos': '0'},
        values=OFTEN,
        figure='ablation',
    ),
    Experiment(
        name='no_operator',
        says='lift, easy, 5 demonstrations, nobody helps',
        steps=3000,
        options={'operator': 'none'},
        values=OFTEN,
        figure='ablation',
    ),
    Experiment(
        name='alone',
        says='lift, easy, neither demonstrations nor help',
        steps=3000,
        options={'demos': '0', 'operator': 'none'},
        values=OFTEN,
        figure='ablation',
        seeds=1,
    ),
    Experiment(
        name='sac',
        says='lift, easy, agent sac',
        steps=3000,
        options={'agent': 'sac'},
        values=OFTEN,
        figure='ablation',
    ),
    Experiment(
        name='faithful',
        says='lift, easy, agent faithful (DrQ-v2 as RoboBase has it)',
        steps=3000,
        options={'agent': 'faithful'},
        values=OFTEN,
        figure='ablation',
        seeds=1,
    ),
    Experiment(
        name='provoked',
        says='lift, easy, learning rate ten times too high',
        steps=3000,
        values={'learning_rate': '0.003', 'eval_every': '250'},
        figure='provoked',
        seeds=1,
    ),
    Experiment(
        name='long',
        says='lift, easy, five times as many steps',
        steps=30000,
        figure='long',
        seeds=1,
    ),
)
"""In the order in which they are run; what another one begins with comes before it."""
