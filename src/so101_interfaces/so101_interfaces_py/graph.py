# SPDX-License-Identifier: Apache-2.0
"""Who takes part in the graph: from which machines, and one node of each name.

DDS asks nobody for a name: whoever is near, in the same domain, may command the joints. So the graph stays on this
machine unless somebody opens it (`settle`, `variables`), a node has its name to itself (`claim`), and tests have a
domain that no arm has (`isolate`). None of it needs ROS to be imported.
"""

from collections.abc import Mapping, MutableMapping
from contextlib import closing
import os
from pathlib import Path
import socket
import struct
import time

# --- from which machines ---

LOOPBACK, LAN = 'loopback', 'lan'
DOMAIN = 'ROS_DOMAIN_ID'
RANGE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'
PEERS = 'ROS_STATIC_PEERS'
LOCALHOST_ONLY = 'ROS_LOCALHOST_ONLY'
PROFILES = 'FASTRTPS_DEFAULT_PROFILES_FILE'
LEFT_TO_PROFILE = 'SYSTEM_DEFAULT'
"""The discovery range with which a profile of Fast DDS decides alone."""
PROFILE_FOLDER = Path('share', 'so101_bringup', 'config')
CLOSED_PROFILE, OPEN_PROFILE = 'fastdds.xml', 'fastdds_lan.xml'


def domain_of(environ: Mapping[str, str] = os.environ) -> int:
    """Return the ROS domain of an environment; what ROS will refuse counts as 0 here."""
    text = environ.get(DOMAIN, '')
    return int(text) if text.isdecimal() else 0


def is_open(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether other machines may find the nodes that start in an environment."""
    said = environ.get(RANGE, 'LOCALHOST')
    if said == LEFT_TO_PROFILE and _is_fast(environ) and _is_closed(environ):
        said = 'LOCALHOST'
    return said not in ('LOCALHOST', 'OFF') or bool(environ.get(PEERS))


def _is_fast(environ: Mapping[str, str]) -> bool:
    return environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp').startswith('rmw_fastrtps')


def _is_closed(environ: Mapping[str, str]) -> bool:
    return not users_profile(environ) and Path(environ.get(PROFILES, '')).name == CLOSED_PROFILE


def participants_here(domain: int) -> int:
    """Count those who take part in a domain on this machine, whoever they are: each has a port that RTPS reckons."""
    first = 7400 + 250 * domain + 10
    lines = Path('/proc/net/udp').read_text(encoding='ascii').splitlines()[1:]
    return len(
        {int(line.split()[1].partition(':')[2], 16) for line in lines} & set(range(first, first + 240, 2))
    )


def profile(open_: bool, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file with the settings of Fast DDS for an open or a closed graph, where it is installed."""
    prefixes = [Path(entry) for entry in environ.get('AMENT_PREFIX_PATH', '').split(':') if entry]
    paths = [prefix / PROFILE_FOLDER / (OPEN_PROFILE if open_ else CLOSED_PROFILE) for prefix in prefixes]
    return next((path for path in paths if path.exists()), None)


def users_profile(environ: Mapping[str, str] = os.environ) -> str:
    """Return the profile of Fast DDS that the user wrote and named, or nothing: it is obeyed instead of ours."""
    named = environ.get(PROFILES, '')
    ours = {path.resolve() for path in (profile(True, environ), profile(False, environ)) if path is not None}
    return '' if not named or Path(named).resolve() in ours else named


def variables(network: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables by which nodes that start get the network that somebody has chosen.

    Where it is loopback, the discovery range is left to our profile. It says all that LOCALHOST does, and binds to
    127.0.0.1 alone; with LOCALHOST beside it, rmw_fastrtps (8.4) adds transports of its own, on every interface, with
    which everything is sent twice and nodes find each other late or not at all.

    Args:
        network: `loopback`, `lan`, or addresses of other machines with commas between.
        environ: What is there; a Fast DDS profile that the user wrote stays.
    """
    chosen = {RANGE: 'SUBNET' if network == LAN else 'LOCALHOST'}
    chosen[PEERS] = (
        '' if network in (LOOPBACK, LAN) else ';'.join(part.strip() for part in network.split(','))
    )
    if environ.get(LOCALHOST_ONLY):  # the word of old for LOCALHOST, and stronger than the new one
        chosen[LOCALHOST_ONLY] = ''
    path = profile(network != LOOPBACK, environ)
    if path is not None and not users_profile(environ):
        chosen[PROFILES] = str(path)
        if network == LOOPBACK and _is_fast(environ):
            chosen[RANGE] = LEFT_TO_PROFILE
    return chosen


def settle(environ: MutableMapping[str, str] = os.environ) -> None:
    """Keep the nodes of this process on this machine, unless the environment opens the graph; before rclpy starts."""
    said = environ.setdefault(RANGE, 'LOCALHOST')
    if not is_open(environ):
        environ.update(variables(LOOPBACK, environ))
    elif _is_closed(environ) or not environ.get(PROFILES):
        environ.update({**variables(LAN, environ), RANGE: said, PEERS: environ.get(PEERS, '')})


# --- one of each ---

TEST_DOMAIN = 'SO101_TEST_DOMAIN'
"""Set where tests, benches and their children run: the domain that they have to themselves."""
TEST_DOMAINS = (100, 101, *range(215, 233))
"""No arm's usual ones, and their ports lie outside those that Linux hands out (32768 to 60999)."""
TEST_DOMAIN_TIMEOUT_S = 600.0
TEST_NODES = (
    'test_*,bench_*,*_rig,probe_node,feeder,fake_session,played_session,arm_client,graph_client,console_test,stand_in,'
    'two_arms,hand,asks'
)
"""What tests and benches drive a graph with, beside the nodes of the stack."""
TRUSTED = 'SO101_TRUSTED'
"""Environment variable: names of nodes, with commas between and * for any letters, that may speak beside ours."""


class TakenError(Exception):
    """Somebody else has the name; the message is one sentence."""


BACKLOG = 128
"""So many may ask who holds a name; nobody answers them, the kernel knows it."""


def _address(words: str) -> str:
    # Without a file: the kernel knows such a name within one network namespace, as far as loopback reaches, and
    # forgets it with the process, however that ends.
    return f'\0so101/{words}'[:100]


def _bind(words: str) -> socket.socket | None:
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(_address(words))
    except OSError:
        held.close()
        return None
    held.listen(BACKLOG)
    return held


def _holder(words: str) -> int | None:
    """Return the process that holds a name (0: one that cannot be seen from here), or None where nobody does."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as asks:
        asks.setblocking(False)
        try:
            asks.connect(_address(words))
        except BlockingIOError:  # asked too often at once: it is there
            return 0
        except OSError:
            return None
        return int(struct.unpack('3i', asks.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def _process(pid: int) -> str:
    return f' (process {pid})' if pid else ''


def _place(domain: int, namespace: str, name: str) -> str:
    return '/'.join(filter(None, (str(domain), namespace.strip('/'), name)))


def check_free(domain: int, namespace: str, name: str) -> None:
    """See whether a node of this name may start.

    Raises:
        TakenError: one runs already in this domain and namespace, or the domain belongs to tests.
    """
    tests = None if os.environ.get(TEST_DOMAIN) == str(domain) else _holder(f'tests/{domain}')
    if tests is not None:
        raise TakenError(
            f'{name}: ROS domain {domain} is in use by tests{_process(tests)}, which no arm may share; '
            f'expected another {DOMAIN}.'
        )
    found = _holder(_place(domain, namespace, name))
    if found is not None:
        where = f'namespace /{namespace.strip("/")}, ' if namespace.strip('/') else ''
        raise TakenError(
            f'{name} runs already in {where}ROS domain {domain}{_process(found)}, and there may be one; end it first, '
            f'or start this one with another {DOMAIN} or namespace.'
        )


def claim(domain: int, namespace: str, name: str) -> socket.socket:
    """Take the name of a node for this process, until the socket is closed.

    Raises:
        TakenError: as `check_free` does.
    """
    check_free(domain, namespace, name)
    held = _bind(_place(domain, namespace, name))
    if held is None:  # somebody was quicker
        check_free(domain, namespace, name)
        raise TakenError(f'{name}: the name could not be taken in ROS domain {domain}; start it again.')
    return held


_kept: list[socket.socket] = []


def isolate(anew: bool = False, environ: MutableMapping[str, str] = os.environ) -> int:
    """Give this process and its children a ROS domain that no arm and no other test has; call it before rclpy starts.

    Args:
        anew: Also where a parent has one already.
        environ: Where it is said.

    Raises:
        TakenError: none became free in ten minutes.
    """
    given = '' if anew else environ.get(TEST_DOMAIN, '')
    deadline = time.monotonic() + TEST_DOMAIN_TIMEOUT_S
    while not given:
        given = next(filter(None, map(_take_domain, TEST_DOMAINS)), '')
        if not given and time.monotonic() > deadline:
            raise TakenError(f'expected one of the ROS domains {TEST_DOMAINS} for the tests, all are in use.')
        time.sleep(0.0 if given else 1.0)
    environ.update(variables(LOOPBACK, environ) | {DOMAIN: given, TEST_DOMAIN: given, TRUSTED: TEST_NODES})
    return int(given)


def _take_domain(domain: int) -> str:
    names = Path('/proc/net/unix').read_text(encoding='utf-8', errors='replace')
    held = None if f'@so101/{domain}/' in names else _bind(f'tests/{domain}')
    if held is None:
        return ''
    _kept.append(held)
    return str(domain)
