# SPDX-License-Identifier: Apache-2.0
"""Messages between the genuine servers of each version and their clients, as they went over the socket."""

import base64
import json
from pathlib import Path

from vla_policy_node.wire import Encoding

ENCODINGS = {'n15': Encoding.N15, 'n16': Encoding.N16, 'n17': Encoding.N16, 'may26': Encoding.MAIN}
PICKLES = ('n15first', 'n15pickle')
CONTENT = json.loads((Path(__file__).parent / 'data' / 'wire.json').read_text())


def frames(version):
    """Return (endpoint, request, reply) of each exchange."""
    content = CONTENT[version]
    return [
        (one.get('endpoint', one.get('what')), *(base64.b64decode(one[key]) for key in ('request', 'reply')))
        for one in content['messages'] + content.get('token', [])
    ]


def reply_to(version, endpoint, nth=0):
    """Return the reply to the nth exchange of an endpoint."""
    return [reply for name, _, reply in frames(version) if name == endpoint][nth]
