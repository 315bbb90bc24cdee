# SPDX-License-Identifier: Apache-2.0
from hypothesis import settings

# A busy machine may take its time over one example; the suite's timeout still ends what hangs.
settings.register_profile('so101', deadline=None)
settings.load_profile('so101')
