# SPDX-License-Identifier: Apache-2.0
"""One thread for torch: the tests share two cores with everything else, where more threads are many times slower."""

from hypothesis import settings
import pytest
import torch

from hilserl_learner.training.trainer import prepare_cpu


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    prepare_cpu(1)
    yield
    torch.set_num_threads(threads)


# A busy machine may take its time over one example; the suite's timeout still ends what hangs.
settings.register_profile('so101', deadline=None)
settings.load_profile('so101')
