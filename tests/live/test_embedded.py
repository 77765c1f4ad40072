"""Attacks on the Redis that `gateway dev` brings, by a program of the same machine."""

import ast
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any, cast

import fakeredis
import lupa.lua51
import pytest
import redis
from redis.exceptions import ResponseError

from gateway.broker.embedded import EmbeddedRedis
from testing.process import free_port

# Each is a Lua expression that would be `true` if it reached what its name says.
ATTACKS = {
    "python": "python ~= nil",
    "python.eval": "python.eval('1 + 1') == 2",
    "python.builtins": "python.builtins.len ~= nil",
    "os": "os.execute('true') ~= nil",
    "io": "io.open('/etc/passwd') ~= nil",
    "debug": "debug.getregistry() ~= nil",
    "package": "package.loaded.os ~= nil",
    "package.loadlib": "package.loadlib ~= nil",
    "require": "require('os') ~= nil",
    "require python": "require('python') ~= nil",
    "module": "module ~= nil",
    "dofile": "dofile ~= nil",
    "loadfile": "loadfile ~= nil",
    "load": "load(function() return nil end) ~= nil",
    "getfenv": "getfenv(0) ~= nil",
    "setfenv": "setfenv ~= nil",
    "newproxy": "newproxy(true) ~= nil",
    "_G": "(_G.python or _G.os or _G.io or _G.debug or _G.package) ~= nil",
    "rawget": "(rawget(_G, 'python') or rawget(_G, 'os') or rawget(_G, 'debug')) ~= nil",
    "text that names them": "loadstring('return python or os or io or debug or package')() ~= nil",
    "string.dump": "string.dump(function() end) ~= nil",
    "string.dump by its metatable": "getmetatable('').__index.dump ~= nil",
    "a callback's attributes": "redis.call.__globals__ ~= nil",
    "a callback's class": "redis.pcall.__class__ ~= nil",
    "a callback's item": "redis.call['__globals__'] ~= nil",
    "a closure's variables": "redis.pcall.__closure__ ~= nil",
    "a partial's arguments": "redis.log.args ~= nil",
    "a plain object's class": "cjson.null.__class__ ~= nil",
    "setting an attribute": "(function() redis.call.x = 1; return true end)()",
    "an exception's frames": "(function() local _, e = pcall(redis.call); return e.__traceback__ ~= nil end)()",
    "an exception's class": "(function() local _, e = pcall(redis.call); return e.__class__ ~= nil end)()",
    "a callback's metatable": "getmetatable(redis.call) ~= nil",
    "the plain object's metatable": "getmetatable(cjson.null) ~= nil",
    "an exception's metatable": "(function() local _, e = pcall(redis.call); return getmetatable(e) ~= nil end)()",
}


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(free_port()) as server:
        yield server


@pytest.fixture
def client(embedded: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(embedded.url, protocol=2) as client:
        yield client


def answer(client: redis.Redis, *command: str | bytes | int) -> object:
    """An error as well."""
    try:
        return cast("Any", client).execute_command(*command)
    except ResponseError as error:
        return error


def test_the_attacks_succeed_without_the_sandbox() -> None:
    """Otherwise what is tested below would be no attack."""
    client = fakeredis.FakeRedis()
    caught = "local ok, reached = pcall(function() return %s end); return tostring(ok and reached)"
    harmless = {name for name, attack in ATTACKS.items() if client.eval(caught % attack, 0) != b"true"}
    assert harmless == set()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_script_reaches_nothing(client: redis.Redis, attack: str) -> None:
    caught = f"local ok, reached = pcall(function() return {attack} end); return tostring(ok and reached)"
    assert client.eval(caught, 0) == b"false"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_function_reaches_nothing(client: redis.Redis, attack: str) -> None:
    body = (
        f"function() local ok, reached = pcall(function() return {attack} end); return tostring(ok and reached) end"
    )
    client.function_load(f"#!lua name=attack\nredis.register_function('attack', {body})", replace=True)
    assert client.fcall("attack", 0) == b"false"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_library_that_is_being_loaded_reaches_nothing(client: redis.Redis, attack: str) -> None:
    code = f"if {attack} then redis.register_function('reached', function() end) end"
    said = answer(client, "FUNCTION", "LOAD", "REPLACE", f"#!lua name=attack\n{code}")
    assert isinstance(said, ResponseError)


def test_bytecode_is_no_script(client: redis.Redis) -> None:
    code = lupa.lua51.LuaRuntime(encoding=None).execute("return string.dump(function() return 7 end)")
    assert "text" in str(answer(client, "EVAL", code, 0))
    assert "text" in str(answer(client, "EVALSHA", client.script_load(code), 0))
    # Nor what a script loads: the same bytes, in a string.
    assert client.eval("return tostring(pcall(loadstring, ARGV[1]))", 0, code) == b"false"


def test_nothing_is_unpickled(client: redis.Redis, tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "taken"),))

    body = pickle.dumps(Exploit())
    payload = sha1(body).digest() + body
    # It does, in a fakeredis of its own.
    answer(fakeredis.FakeRedis(), "RESTORE", "a", 0, payload)
    (tmp_path / "taken").rmdir()
    for command in ("RESTORE", "restore"):
        assert "embedded" in str(answer(client, command, "a", 0, payload))
    assert "embedded" in str(answer(client, "EVAL", "return redis.call('restore', 'a', 0, ARGV[1])", 0, payload))
    with client.pipeline(transaction=True) as transaction:
        cast("Any", transaction).execute_command("RESTORE", "a", 0, payload)
        with pytest.raises(redis.RedisError):
            transaction.execute()
    assert not (tmp_path / "taken").exists()


def test_no_file_is_written_or_read(client: redis.Redis, tmp_path: Path) -> None:
    file = tmp_path / "rules"
    answer(client, "CONFIG", "SET", "aclfile", str(file))
    for subcommand in ("SAVE", "LOAD"):
        assert "embedded" in str(answer(client, "ACL", subcommand))
        assert "embedded" in str(answer(client, "EVAL", f"return redis.call('ACL', '{subcommand}')", 0))
    assert not file.exists()


def test_a_web_page_can_send_no_command(embedded: EmbeddedRedis, client: redis.Redis) -> None:
    """A browser lets any page POST any text to any port: the connection must end at the request line."""
    body = b"*3\r\n$3\r\nSET\r\n$5\r\ntaken\r\n$1\r\n1\r\n"
    with socket.create_connection(("127.0.0.1", embedded.port)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 32\r\n\r\n" + body)
        while connection.recv(4096):
            pass
    assert not client.exists("taken")


def test_scripts_still_work(client: redis.Redis) -> None:
    assert client.eval("return {redis.call('SET', KEYS[1], ARGV[1]), redis.call('GET', KEYS[1])}", 1, "k", "v") == [
        b"OK",
        b"v",
    ]
    assert client.eval("return cjson.decode(cjson.encode({a = cjson.null})).a == cjson.null", 0) == 1
    assert client.eval("return loadstring('return 1 + 1')()", 0) == 2
    assert client.eval("local ok, e = pcall(redis.call, 'NOSUCH'); return tostring(e)", 0)


def test_other_users_of_fakeredis_keep_theirs() -> None:
    """Importing ours, and running one, leaves fakeredis as it was."""
    program = (
        "import fakeredis\n"
        "from gateway.broker.embedded import EmbeddedRedis\n"
        f"with EmbeddedRedis({free_port()}):\n"
        "    print(fakeredis.FakeRedis().eval('return python.eval(\"40 + 2\")', 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "42"


def test_fakeredis_holds_no_other_way_to_files_and_code() -> None:
    """A later version may bring one: whoever updates it looks at what this lists, and closes it."""
    root = Path(fakeredis.__file__).parent
    dangerous = re.compile(
        r"open|eval|exec|compile|__import__|(pickle|marshal|shelve|importlib|subprocess|shutil)\..*|os\.[a-z]+"
    )
    found = {
        (path.relative_to(root).as_posix(), called)
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and dangerous.fullmatch(called := ast.unparse(node.func))
    }
    assert found == {
        ("commands_mixins/acl_mixin.py", "open"),  # ACL SAVE, ACL LOAD
        ("commands_mixins/generic_mixin.py", "pickle.loads"),  # RESTORE
        ("commands_mixins/generic_mixin.py", "pickle.dumps"),  # DUMP
        ("commands_mixins/scripting_mixin.py", "importlib.import_module"),  # of lupa, when it is imported
        ("commands_mixins/scripting_mixin.py", "os.getenv"),
        ("model/_command_info.py", "open"),  # its own commands.json
    }
