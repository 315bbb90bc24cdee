# SPDX-License-Identifier: Apache-2.0
"""The web server: the page, its files, the arm's meshes, and one WebSocket a page. Runs in a thread of its own."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
import json
import logging
from pathlib import Path
import socket
import threading
from typing import Any, TYPE_CHECKING
from uuid import uuid4

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
import uvicorn

from so101_console.access import Access, AccessMiddleware
from so101_console.connections import bound_unread, BoundedProtocol, BoundedSocket, MOST_PAGES
from so101_console.operator_input import DriveError
from so101_session.teleop.devices.controls import page_controls

if TYPE_CHECKING:
    from so101_console.backend import PageBackend

_log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / 'page'
FILES = {path.name: path for path in PAGE.iterdir() if path.is_file()}
"""All that a browser may ask for below /page; whatever else it names, no path is made of it."""
LONGEST_MESSAGE = 2000
"""A page's messages are short; one that is longer is refused [characters]."""
LONGEST_NUMBER = 9
"""Of a step, in an address [digits]."""
TRY_AGAIN = 1013
"""RFC 6455, 7.4: how a socket is closed whose page shall come back."""
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 2.0
HEADERS = {
    'content-security-policy': "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-store',
}


class ServerError(OSError):
    """The address cannot be served on."""


def application(
    backend: 'PageBackend', access: Access, state_period_s: float, frame_period_s: float
) -> Starlette:
    """Return the application: everything it serves lies in this package."""
    pages = set[_Page]()

    async def page(_: Request) -> Response:
        return FileResponse(FILES['index.html'])

    async def part(request: Request) -> Response:
        found = FILES.get(request.path_params['name'])
        return FileResponse(found) if found else Response('There is no such file.', 404)

    async def arm(_: Request) -> Response:
        return Response(await asyncio.to_thread(backend.arm_file), media_type='application/octet-stream')

    async def controls(_: Request) -> Response:
        return JSONResponse(page_controls())

    async def episodes(_: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(backend.episodes))

    async def episode(request: Request) -> Response:
        found = await asyncio.to_thread(backend.episode, request.query_params.get('key', ''))
        return JSONResponse(found) if found else Response('There is no such episode.', 404)

    async def episode_frame(request: Request) -> Response:
        index = request.query_params.get('index', '')
        camera = request.query_params.get('camera', '0')
        if not all(number.isdecimal() and len(number) <= LONGEST_NUMBER for number in (index, camera)):
            return Response('Expected the number of a step, and of a camera.', 400)
        key = request.query_params.get('key', '')
        found = await asyncio.to_thread(backend.episode_frame, key, int(index), int(camera))
        return (
            Response(found, media_type='image/jpeg') if found else Response('There is no such picture.', 404)
        )

    async def film(request: Request) -> Response:
        key = request.query_params.get('key', '')
        if request.method == 'POST':  # a browser says where a POST comes from, so no other site makes one
            return JSONResponse({'refused': await asyncio.to_thread(backend.make_film, key)})
        found = backend.film(key)
        if found is None:
            return Response('There is no such film; it must be made first.', 404)
        return FileResponse(found, media_type='video/mp4', filename=found.name)

    async def runs(_: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(backend.runs))

    async def run(request: Request) -> Response:
        found = await asyncio.to_thread(backend.run, request.query_params.get('name', ''))
        return JSONResponse(found) if found else Response('There is no such run.', 404)

    async def export(request: Request) -> Response:
        name = request.query_params.get('name', '')
        return JSONResponse({'refused': await asyncio.to_thread(backend.export_run, name)})

    async def job(_: Request) -> Response:
        return JSONResponse(backend.job())

    async def phone(_: Request) -> Response:
        found = backend.phone_code
        if not found:
            return Response('This page is for this machine alone: start with phone:=true.', 404)
        return Response(found, media_type='image/svg+xml')

    async def doubt(_: Request) -> Response:
        return _jpeg(backend.doubt())

    async def start_scene(request: Request) -> Response:
        camera = request.query_params.get('camera', '0')
        if not (camera.isdecimal() and len(camera) <= LONGEST_NUMBER):
            return Response('Expected the number of a camera.', 400)
        return _jpeg(backend.help.picture(int(camera)))

    async def stop(_: Request) -> Response:
        # Beside the WebSocket: a page whose socket is gone can still stop the arm.
        backend.ask('e_stop')
        return Response(status_code=202)

    async def live(socket: WebSocket) -> None:
        if len(pages) >= MOST_PAGES:
            await socket.close(TRY_AGAIN, f'{MOST_PAGES} pages are open; close one')
            return
        page = _Page(socket, backend)
        pages.add(page)
        try:
            await page.run(state_period_s, frame_period_s)
        finally:
            pages.remove(page)

    return Starlette(
        routes=[
            Route('/', page),
            Route('/arm', arm),
            Route('/controls', controls),
            Route('/episodes', episodes),
            Route('/episode', episode),
            Route('/episode_frame', episode_frame),
            Route('/film', film, methods=['GET', 'POST']),
            Route('/job', job),
            Route('/runs', runs),
            Route('/run', run),
            Route('/export', export, methods=['POST']),
            Route('/phone.svg', phone),
            Route('/doubt', doubt),
            Route('/start_scene', start_scene),
            Route('/stop', stop, methods=['POST']),
            WebSocketRoute('/live', live),
            Route('/page/{name}', part),
        ],
        middleware=[Middleware(AccessMiddleware, access=access), Middleware(_HeadersMiddleware)],
    )


def _jpeg(found: bytes) -> Response:
    headers = {'Cache-Control': 'no-store'}
    return Response(found, media_type='image/jpeg', headers=headers) if found else Response('None.', 404)


class _HeadersMiddleware:
    """Tells the browser to load nothing from elsewhere."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message['type'] == 'http.response.start':
                own = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                message = {**message, 'headers': [*message.get('headers', []), *own]}
            await send(message)

        await self._app(scope, receive, send_with_headers if scope['type'] == 'http' else send)


class _Page:
    """One open page: hears what it wants, tells it how things are."""

    def __init__(self, socket: WebSocket, backend: 'PageBackend') -> None:
        self._socket = socket
        self._backend = backend
        self._name = uuid4().hex

    async def run(self, state_period_s: float, frame_period_s: float) -> None:
        """Serve the page until it goes."""
        await self._socket.accept()
        tasks = [asyncio.create_task(self._hear()), asyncio.create_task(self._tell(state_period_s))]
        if frame_period_s > 0.0:
            shows = (self._show(frame_period_s, camera) for camera in range(self._backend.cameras))
            tasks += [asyncio.create_task(show) for show in shows]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._backend.closed(self._name)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):  # a page that hears nothing more must know: it asks again
                _log.error('a page is asked to connect again: %r', error)
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.close(TRY_AGAIN)

    async def _hear(self) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                message = await self._socket.receive()
                if message['type'] == 'websocket.disconnect':
                    return
                answer = self._read(message.get('text') or '')
                if answer:
                    await self._socket.send_text(json.dumps({'type': 'note', 'text': answer}))

    def _read(self, text: str) -> str:
        try:
            message = json.loads(text) if len(text) <= LONGEST_MESSAGE else None
            if not isinstance(message, dict):
                return 'expected a short JSON object, got something else; nothing was done'
            return self._backend.act(self._name, message)
        except (ValueError, RecursionError) as error:
            return (
                str(error) if isinstance(error, DriveError) else 'expected JSON, got none; nothing was done'
            )

    async def _tell(self, period_s: float) -> None:
        """Say what has changed; a message without news still says that the console is there."""
        told, known = 0, dict[str, Any]()
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                state = self._backend.state(self._name)
                curves = self._backend.curves(told)
                if curves['rows']:
                    told = curves['until']
                    state['curves'] = curves
                news = {key: value for key, value in state.items() if key not in known or known[key] != value}
                known = state
                await self._socket.send_text(
                    json.dumps({'type': 'state', **news}, separators=(',', ':'), allow_nan=False)
                )
                await asyncio.sleep(period_s)

    async def _show(self, period_s: float, camera: int) -> None:
        shown = -1
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                frame = await asyncio.to_thread(self._backend.frame, shown, camera)
                if frame is not None:
                    shown, jpeg = frame
                    await self._socket.send_bytes(jpeg)
                await asyncio.sleep(period_s)


class Server:
    """Serves an application in a thread until it is closed."""

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            bound_unread(self._socket)
            self._socket.listen()  # at once: who connects before the thread runs waits, and nobody else gets the port
        except OSError as error:
            self._socket.close()
            raise ServerError(
                f'expected to serve on {host}:{port}, but {error.strerror}; end the other console or set `port`'
            ) from error
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws=BoundedSocket,
            log_level='warning',
            access_log=False,
            lifespan='off',
            ws_max_size=LONGEST_MESSAGE * 4,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name='console-server', daemon=True)

    def start(self, on_failure: Callable[[], None]) -> None:
        """Begin to serve; `on_failure` is called if serving ends by itself."""
        self._on_failure = on_failure
        self._thread.start()

    def close(self) -> None:
        """Stop serving. Safe to call twice."""
        self._server.should_exit = self._server.force_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
        if not self._server.should_exit:
            self._on_failure()
