"""The endpoints in docs/auth.md, in the frameworks that they are for, with real sessions."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
import fastapi
import flask
import httpx
import pytest
import uvicorn
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model, login
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from starlette.middleware.sessions import SessionMiddleware

from testing.servers import RedisServer, Worker
from testing.stream import open_stream
from testing.waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "auth.md"


def endpoint(framework: str, **names: Any) -> dict[str, Any]:
    """What the page's code for a framework defines."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (code,) = [code for code in blocks if code.startswith(f"# {framework}\n")]
    names["__name__"] = "application"
    exec(code, names)  # noqa: S102 - it is ours
    return names


@contextmanager
def served_by_wsgi(application: Any) -> Iterator[str]:
    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def django_application(directory: Path) -> Iterator[str]:
    urls: list[Any] = []
    django_settings.configure(
        SECRET_KEY="not one of a real site",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=type("urls", (), {"urlpatterns": urls}),
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "users.sqlite3"}},
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    )
    django.setup()

    def log_in(request: Any) -> HttpResponse:
        user, _ = get_user_model().objects.get_or_create(pk=request.GET["user"], username=request.GET["user"])
        login(request, user)
        return HttpResponse("welcome")

    urls += [path("login", log_in), path("gateway/auth", endpoint("Django")["gateway_auth"])]
    call_command("migrate", verbosity=0)
    with served_by_wsgi(get_wsgi_application()) as url:
        yield url


@contextmanager
def flask_application(_: Path) -> Iterator[str]:
    app = flask.Flask("application")
    app.secret_key = "not one of a real site"

    @app.get("/login")
    def log_in() -> str:
        flask.session["user"] = flask.request.args["user"]
        return "welcome"

    endpoint("Flask", app=app)
    with served_by_wsgi(app) as url:
        yield url


@contextmanager
def fastapi_application(_: Path) -> Iterator[str]:
    app = fastapi.FastAPI()
    app.add_middleware(SessionMiddleware, secret_key="not one of a real site")

    @app.get("/login")
    def log_in(request: fastapi.Request, user: str) -> str:
        request.session["user"] = user
        return "welcome"

    endpoint("FastAPI", app=app)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            wait_until(lambda: server.started, "it runs")
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("application", [django_application, flask_application, fastapi_application])
def test_a_session_opens_what_its_user_may_have(
    application: Callable[[Path], Any], redis_server: RedisServer, tmp_path: Path
) -> None:
    with application(tmp_path) as url, Worker(tmp_path, redis_server.url, auth_url=f"{url}/gateway/auth") as worker:

        def status(channel: str, cookie: str) -> int:
            return httpx.head(f"{worker.url}/events?channel={channel}", headers={"Cookie": cookie}).status_code

        with httpx.Client() as browser:
            assert browser.get(f"{url}/login?user=42").text.strip('"') == "welcome"
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        with (
            open_stream(worker.url, ["news.sport", "user.42"], headers={"Cookie": cookie}) as stream,
            redis_server.client() as redis,
        ):
            redis.publish("user.42", "hello")
            assert stream.next().data == "hello"
        assert status("user.43", cookie) == 403
        assert status("news.sport", "") == 401
        assert status("news.sport", cookie[:-5] + "xxxxx") == 401
        answer = httpx.post(f"{worker.url}/publish/news.sport", content="x", headers={"Cookie": cookie})
        assert answer.status_code == 403
