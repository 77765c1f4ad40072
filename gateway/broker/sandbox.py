"""What clients of the embedded Redis must not reach: the Python that runs it, and the files of whoever started it.

fakeredis is a double for tests and trusts its clients. `EVAL "return python.eval('1+1')" 0` runs Python, every
Python object that Lua can see (a callback, an exception) leads to all of Python through its attributes, Lua's
bytecode is not verified, RESTORE unpickles what it is given, and ACL SAVE writes to any file. But every program of
this machine, those of other users included, reaches the port.

Only servers that go through `confine` are confined; fakeredis is left as it is for all others in this process.
"""

from types import FunctionType, SimpleNamespace
from typing import Any, NoReturn

import lupa.lua51
from fakeredis import FakeServer
from fakeredis._clients._sync import FakeRedisConnection
from fakeredis._helpers import SimpleError
from fakeredis._socket import FakeSocket
from fakeredis.commands_mixins import _lua_functions, scripting_mixin
from redis.exceptions import ResponseError

_REFUSED = frozenset({"restore", "acl save", "acl load"})

# Before anything of fakeredis runs. What Redis' own sandbox offers is what remains, less `load`, which would have to
# be wrapped as well. The metatables of Python's objects hold functions that take any userdata, __gc among them.
_STRIP = """
local kind, byte, get, compile = type, string.byte, getmetatable, loadstring
local kept = {}
for name in string.gmatch([[
  _G _VERSION assert collectgarbage coroutine debug error gcinfo getmetatable ipairs loadstring math next pairs pcall
  rawequal rawget rawset select setfenv setmetatable string table tonumber tostring type unpack xpcall
]], '%S+') do kept[name] = true end
for name in pairs(_G) do
  if not kept[name] then _G[name] = nil end
end
string.dump = nil
getmetatable = function(value)
  if kind(value) == 'userdata' then return nil end
  return get(value)
end
loadstring = function(code, name)
  if kind(code) ~= 'string' or byte(code) == 27 then error('only text can be loaded', 2) end
  return compile(code, name)
end
"""
# fakeredis' own code needs these while it sets itself up, and keeps them to itself.
_STRIP_AFTERWARDS = "debug, setfenv = nil, nil"

_BYTECODE = b"\x1b"


def confine(server: FakeServer) -> None:
    """Give a server that has no clients yet Lua interpreters that know nothing of Python.

    Its clients must be `ConfinedConnection`s.

    Raises:
        RuntimeError: this version of fakeredis can't be confined.
    """
    if scripting_mixin.LUA_MODULE is not lupa.lua51:
        raise RuntimeError("fakeredis must use Lua 5.1, as Redis does; unset FAKEREDIS_LUA_VERSION")
    try:
        # The very function that makes the interpreter otherwise, with ours in the place of lupa.
        make: Any = FunctionType(
            scripting_mixin.ScriptingCommandsMixin._get_server_runtime.__code__,
            {**vars(scripting_mixin), "LUA_MODULE": _Lua},
        )
        make(SimpleNamespace(load_lua_modules=()), server)
        server._lua_functions = _lua_functions.FunctionsEngine(
            _Lua,
            server.server_type,
            server.version,
            scripting_mixin._lua_redis_log,
            scripting_mixin._lua_cjson_encode,
            scripting_mixin._lua_cjson_decode,
            scripting_mixin._lua_cjson_null,
        )
        for runtime in (server._lua_runtime, server._lua_functions.runtime):
            runtime.execute(_STRIP_AFTERWARDS)
        escape = _escape(server)
    except (AttributeError, TypeError, lupa.lua51.LuaError) as error:
        escape = repr(error)
    if escape:
        raise RuntimeError(f"this version of fakeredis can't be confined: {escape}")


class ConfinedConnection(FakeRedisConnection):  # type: ignore[misc]
    """A client's side."""

    def _connect(self) -> FakeSocket:
        return _ConfinedSocket(
            self._server,
            client_class=self._client_class,
            db=self.db,
            lua_modules=self._lua_modules,
            client_info=self._client_info,
        )


class _ConfinedSocket(FakeSocket):  # type: ignore[misc]
    def _name_to_func(self, cmd_name: str) -> Any:
        # Scripts come through here as well.
        if cmd_name in _REFUSED:
            raise SimpleError(f"ERR {cmd_name.upper()} is not possible on the embedded Redis")
        return super()._name_to_func(cmd_name)


class _ConfinedRuntime(lupa.lua51.LuaRuntime):  # type: ignore[misc]
    def execute(self, code: bytes | str, *arguments: Any, **options: Any) -> Any:
        # Lua 5.1 takes bytecode wherever it takes text.
        if code[:1] in (_BYTECODE, _BYTECODE.decode()):
            raise lupa.lua51.LuaError("only text can be loaded")
        return super().execute(code, *arguments, **options)


class _Lua:
    """What fakeredis uses of lupa."""

    LuaError = lupa.lua51.LuaError
    lua_type = staticmethod(lupa.lua51.lua_type)

    @staticmethod
    def LuaRuntime(**options: Any) -> _ConfinedRuntime:  # noqa: N802
        runtime = _ConfinedRuntime(
            **options, register_eval=False, register_builtins=False, attribute_filter=_no_attributes
        )
        runtime.execute(_STRIP)
        return runtime


def _no_attributes(_: object, name: object, __: bool) -> NoReturn:
    raise AttributeError(name)


_REACHES = "tostring(pcall(function() return redis.call.__name__ end))"
_PROBES = (
    (("EVAL", "return type(python) .. type(os) .. type(debug)", 0), b"nilnilnil"),
    (("EVAL", f"return {_REACHES}", 0), b"false"),
    (
        (
            "FUNCTION",
            "LOAD",
            f"#!lua name=probe\nredis.register_function('probe', function() return {_REACHES} end)",
        ),
        b"probe",
    ),
    (("FCALL", "probe", 0), b"false"),
    (("FUNCTION", "FLUSH"), b"OK"),
    (("RESTORE", "gateway.probe", 0, b""), None),
)


def _escape(server: FakeServer) -> str:
    """What is still reachable, for a later version of fakeredis may no longer use what is replaced here."""
    client = ConfinedConnection(server=server, protocol=2)
    try:
        for command, harmless in _PROBES:
            client.send_command(*command)
            try:
                answer = client.read_response()
            except ResponseError as error:
                answer = None if "embedded" in str(error) else error
            if answer != harmless:
                return f"{command} is answered with {answer!r}"
    finally:
        client.disconnect()
    return ""
