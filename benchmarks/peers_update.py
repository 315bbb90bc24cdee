# SPDX-License-Identifier: Apache-2.0
"""DrQ-v2 written plainly, as the published PyTorch versions are: the peer of bench_update.

The same networks, losses and order as ours. Images become float before the augmentation, which samples a grid; critics
are a list that is looped over; optimisers and target update are the defaults. It reads one request per line and
answers with the seconds of each update.
"""

import copy
import json
import sys
import time
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional

PRESETS: dict[str, dict[str, Any]] = {
    'robobase': {
        'size': 84,
        'strides': (2, 1, 1, 1),
        'critics': 2,
        'norm': False,
        'shared': False,
        'actor_every': 1,
    },
    'cpu': {
        'size': 64,
        'strides': (2, 2, 2, 1),
        'critics': 10,
        'norm': True,
        'shared': True,
        'actor_every': 2,
    },
}
CHANNELS, STATE, ACTIONS, WIDTH, BOTTLENECK, PAD, TAU, CLIP, STD = 9, 54, 4, 256, 50, 4, 0.01, 0.3, 0.1


def shift(x: Tensor) -> Tensor:
    """Shift float images (B, C, S, S) as DrQ-v2 does."""
    n, _, size, _ = x.shape
    x = functional.pad(x, (PAD,) * 4, 'replicate')
    edge = size + 2 * PAD
    steps = torch.linspace(-1.0 + 1.0 / edge, 1.0 - 1.0 / edge, edge, device=x.device)[:size]
    columns = steps.repeat(size, 1).unsqueeze(2)
    grid = torch.cat([columns, columns.transpose(1, 0)], dim=2).repeat(n, 1, 1, 1)
    moved = torch.randint(0, 2 * PAD + 1, (n, 1, 1, 2), device=x.device).float() * (2.0 / edge)
    return functional.grid_sample(x, grid + moved, padding_mode='zeros', align_corners=False)


class Encoder(nn.Module):
    """Four convolutions."""

    def __init__(self, strides: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, stride in enumerate(strides):
            layers += [nn.Conv2d(32 if i else CHANNELS, 32, 3, stride), nn.ReLU()]
        self.convs = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, F) of float images."""
        return self.convs(x / 255.0 - 0.5).flatten(1)  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Bottlenecks of features and state."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.image, self.state = (
            nn.Sequential(nn.Linear(size, BOTTLENECK), nn.LayerNorm(BOTTLENECK), nn.Tanh())
            for size in (features, STATE)
        )

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        """Return both (B, 100)."""
        return torch.cat([self.image(features), self.state(state)], dim=1)


def mlp(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    """Return two hidden layers and an output."""
    layers: list[nn.Module] = []
    for size in (inputs, WIDTH):
        layers += [nn.Linear(size, WIDTH), *([nn.LayerNorm(WIDTH)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, outputs))


class Critic(nn.Module):
    """A list of value functions."""

    def __init__(self, features: int, count: int, norm: bool, shared: bool) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(Trunk(features) for _ in range(1 if shared else count))
        self.heads = nn.ModuleList(mlp(2 * BOTTLENECK + ACTIONS, 1, norm) for _ in range(count))

    def forward(self, features: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Return the values (B, count)."""
        inputs = [torch.cat([trunk(features, state), action], dim=1) for trunk in self.trunks]
        values = [head(inputs[min(i, len(inputs) - 1)]) for i, head in enumerate(self.heads)]
        return torch.cat(values, dim=1)


class Plain:
    """The agent."""

    def __init__(self, preset: str, device: str) -> None:
        options = PRESETS[preset]
        self.options, self.updates = options, 0
        self.encoder = Encoder(options['strides']).to(device)
        blank = torch.zeros(1, CHANNELS, options['size'], options['size'], device=device)
        features = self.encoder(blank).shape[1]
        self.trunk = Trunk(features).to(device)
        self.head = mlp(2 * BOTTLENECK, ACTIONS, norm=False).to(device)
        self.critic = Critic(features, options['critics'], options['norm'], options['shared']).to(device)
        self.target = copy.deepcopy(self.critic)
        rate = 1e-4
        self.encoder_opt = torch.optim.Adam(self.encoder.parameters(), lr=rate)
        self.critic_opt = torch.optim.Adam(self.critic.parameters(), lr=rate)
        self.actor_opt = torch.optim.Adam([*self.trunk.parameters(), *self.head.parameters()], lr=rate)

    def actor(self, features: Tensor, state: Tensor) -> Tensor:
        """Return a noisy action."""
        mean = torch.tanh(self.head(self.trunk(features, state)))
        action = mean + (torch.randn_like(mean) * STD).clamp(-CLIP, CLIP)
        return action - action.detach() + action.clamp(-1.0, 1.0).detach()

    def update(self, batch: dict[str, Tensor]) -> None:
        """Learn from one batch."""
        images, after = shift(batch['images'].float()), shift(batch['next_images'].float())
        features = self.encoder(images)
        with torch.no_grad():
            next_features = self.encoder(after)
            action = self.actor(next_features, batch['next_state'])
            values = self.target(next_features, batch['next_state'], action)
            if self.options['norm']:
                values = values[:, torch.randperm(values.shape[1])[:2]]
            goal = batch['reward'] + batch['discount'] * values.min(dim=1).values
        values = self.critic(features, batch['state'], batch['action'])
        loss = sum(functional.mse_loss(value, goal) for value in values.unbind(1))
        self.encoder_opt.zero_grad()
        self.critic_opt.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        self.critic_opt.step()
        self.encoder_opt.step()
        if self.updates % self.options['actor_every'] == 0:
            fixed = features.detach()
            values = self.critic(fixed, batch['state'], self.actor(fixed, batch['state']))
            value = values.mean() if self.options['norm'] else values.min(dim=1).values.mean()
            self.actor_opt.zero_grad()
            (-value).backward()
            self.actor_opt.step()
        for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
            slow.data.copy_(TAU * fast.data + (1.0 - TAU) * slow.data)
        self.updates += 1


def random_batch(size: int, rows: int, device: str) -> dict[str, Tensor]:
    """Return a batch in which nothing means anything."""
    shape = (rows, CHANNELS, size, size)
    batch = {name: torch.randint(0, 256, shape, dtype=torch.uint8) for name in ('images', 'next_images')}
    batch |= {name: torch.randn(rows, STATE) for name in ('state', 'next_state')}
    batch |= {'action': torch.rand(rows, ACTIONS) * 2 - 1, 'reward': torch.rand(rows)}
    batch['discount'] = torch.full((rows,), 0.97)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def main() -> None:
    """Answer requests until there are no more."""
    agents: dict[tuple[str, str], Plain] = {}
    print(json.dumps({'torch': torch.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        torch.set_num_threads(request['threads'])
        key = request['preset'], request['device']
        agent = agents.setdefault(key, agents.get(key) or Plain(*key))
        batch = random_batch(PRESETS[key[0]]['size'], request['rows'], key[1])
        seconds, work = [], []
        for _ in range(request['updates']):
            begin, used = time.perf_counter(), time.process_time()
            agent.update(batch)
            if key[1] != 'cpu':
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
            work.append(time.process_time() - used)
        print(json.dumps({'seconds': seconds, 'cpu_seconds': work}), flush=True)


if __name__ == '__main__':
    main()
