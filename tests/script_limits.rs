//! What scripts can do to the server that runs them: nothing worse than to end with an error.
//!
//! `docs/ADVISORIES-LUA.md` names these tests.

use crate::common;

use common::{TestServer, run, try_run, wait_for};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// The value of a script, or its error, as text.
fn answer(c: &mut redis::Connection, script: &str) -> String {
    match try_run::<redis::Value>(c, &["EVAL", script, "0"]) {
        Ok(redis::Value::BulkString(text)) => String::from_utf8_lossy(&text).into_owned(),
        Ok(redis::Value::Int(number)) => number.to_string(),
        Ok(redis::Value::Nil) => "nil".to_owned(),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}

/// What an expression gives, or its error, as a protected call sees it.
fn caught(c: &mut redis::Connection, expression: &str) -> String {
    answer(c, &format!("local ok, e = pcall(function() return {expression} end) return tostring(e)"))
}

fn assert_answers(c: &mut redis::Connection, answers: &[(&str, &str)]) {
    for (script, wanted) in answers {
        let got = answer(c, script);
        assert!(got.contains(wanted), "{script}: {got}");
    }
    assert_eq!(run::<String>(c, &["PING"]), "PONG");
}

#[test]
fn ranges_of_unpack_do_not_overflow() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let too_many = "too many results to unpack";
    assert_answers(
        c,
        &[
            ("return {unpack({1, 2, 3}, 0, 2147483647)}", too_many),
            ("return {unpack({1}, -1, 2147483646)}", too_many),
            ("return {unpack({1}, -2147483648, 2147483647)}", too_many),
            ("return {unpack({1}, 2147483646)}", "[]"),
            ("return {unpack({1}, 1, 8000)}", too_many),
            ("return select('#', unpack({1}, 1, 7000))", "7000"),
            ("return select('#', unpack({}, 2147483646, 2147483647))", "2"),
            ("return select('#', unpack({}, -2147483648, -2147483647))", "2"),
            ("return table.concat({unpack({1, 2, 3, 4}, 2, 3)}, ' ')", "2 3"),
            ("return table.concat({unpack({1, 2, nil, 4})}, ' ', 1, 2)", "1 2"),
            ("return select('#', unpack({1, 2, 3}, nil, nil))", "3"),
            ("return unpack('x')", "bad argument #1 to 'unpack' (table expected, got string)"),
            ("return unpack({}, 'x')", "bad argument #2 to 'unpack' (number expected, got string)"),
            ("return select('#', ('x'):byte(-2147483648, 2147483647))", "1"),
            ("return select('#', ('x'):rep(9000):byte(1, -1))", "string slice too long"),
            ("return ('abc'):sub(-2147483648, 2147483647)", "abc"),
            ("return ('%99999d'):format(1)", "invalid format (width or precision too long)"),
            ("return #('%99.99f'):format(1e308)", "409"),
            ("return table.concat({1}, '', 1, 2147483647)", "invalid value (nil) at index 2"),
            ("return table.concat({}, '', 2147483647, -2147483648)", ""),
            ("return select(-2147483648, 1)", "index out of range"),
            ("return {select(2147483647, 1)}", "[]"),
        ],
    );
}

#[test]
fn the_compiled_form_is_never_loaded() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let refused = "unexpected symbol near 'char(27)'";
    assert_answers(
        c,
        &[
            ("\x1bLuaQ", refused),
            ("local f, e = loadstring(string.dump(function() return 1 end)) return e", refused),
            (
                "local s = string.dump(function() end) return (select(2, load(function() local t = s s = nil return t end)))",
                refused,
            ),
            (
                "local s, i = string.dump(function() end), 0
                 return (select(2, load(function() i = i + 1 return s:sub(i, i) end)))",
                refused,
            ),
        ],
    );
    let error = try_run::<String>(c, &["FUNCTION", "LOAD", "#!lua name=x\n\x1bLuaQ"]).unwrap_err().to_string();
    assert!(error.contains("unexpected symbol near"), "{error}");
}

#[test]
fn names_of_chunks_outlive_collections() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    // The function that gives the program makes garbage, collects it, and fills its place.
    let reader = "local n = 0
        local function read()
            n = n + 1
            if n > 2 then return nil end
            for i = 1, 5 do collectgarbage() end
            for i = 1, 500 do local s = 'z' .. (100000 + i) .. '#' end
            return n == 1 and 'return 1 ' or '+'
        end ";
    let named = |name: &str| answer(c, &format!("{reader} return (select(2, load(read{name})))"));
    let mut named = named;
    assert_eq!(named(""), "(load):1: unexpected symbol near '<eof>'");
    assert_eq!(named(", '@' .. 'abcdef'"), "abcdef:1: unexpected symbol near '<eof>'");
    assert_eq!(named(", '@abc\\0def'"), "abc:1: unexpected symbol near '<eof>'");
    assert_answers(c, &[("return (select(2, loadstring('x', '@ab\\0cd')))", "ab:1: '=' expected near '<eof>'")]);
}

#[test]
fn programs_are_bounded() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let too_long = "the program is too long";
    assert_answers(
        c,
        &[
            ("return (select(2, loadstring('return [' .. ('='):rep(70000000))))", too_long),
            ("return (select(2, loadstring('return [' .. ('='):rep(60000000))))", "invalid long string delimiter"),
            ("local s = ('='):rep(1000000) return (select(2, load(function() return s end)))", "unexpected symbol"),
            (
                "local s = '--[' .. ('='):rep(1000000) return (select(2, load(function() local t = s s = ('='):rep(1000000) return t end)))",
                too_long,
            ),
            // Compiled as it is read.
            (
                "local n = 0 local f, e = load(function() n = n + 1 return 'x x ' end) return e .. ' ' .. n",
                "'=' expected near 'x' 1",
            ),
            ("return (select(2, loadstring(('('):rep(1000))))", "chunk has too many syntax levels"),
            ("return (select(2, loadstring(('a.b,'):rep(300))))", "variables in assignment"),
            ("return (select(2, loadstring(('do '):rep(1000))))", "chunk has too many syntax levels"),
            ("return (select(2, loadstring(('local function f() '):rep(1000))))", "chunk has too many syntax levels"),
        ],
    );
    let long = format!("return 1 --{}", "x".repeat(64 << 20));
    assert!(answer(c, &long).contains(too_long));
    let library = format!("#!lua name=x\n{long}");
    let error = try_run::<String>(c, &["FUNCTION", "LOAD", &library]).unwrap_err().to_string();
    assert!(error.contains(too_long), "{error}");
}

#[test]
fn the_stack_does_not_overflow() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let fixed = (1..=199).map(|i| format!("a{i}")).collect::<Vec<_>>().join(",");
    let many_fixed = format!(
        "local function f({fixed}, ...) local n = a1 if n == 0 then return select('#', ...) end return 0 + f(n - 1) end
         return tostring(f(3000))"
    );
    assert_answers(
        c,
        &[
            (&many_fixed, "0"),
            ("local function f() return 1 + f() end return f()", "stack overflow"),
            ("local function f(...) return 1 + f(1, ...) end return f()", "not enough memory"),
            ("local function f() return coroutine.wrap(f)() end return f()", "C stack overflow"),
            (
                "local function f() local ok, e = coroutine.resume(coroutine.create(f)) error(e) end f()",
                "C stack overflow",
            ),
            ("local function f() return (('x'):gsub('.', f)) end return f()", "C stack overflow"),
            ("local function f() local ok, e = pcall(f) error(e, 0) end f()", "stack overflow"),
            ("local function f() return xpcall(f, f) end return tostring((f()))", ""),
            ("local ok, e = xpcall(error, function() error('x') end) return e", "error in error handling"),
            ("local ok, e = xpcall(error, 5) return e", "error in error handling"),
            ("local t = {} setmetatable(t, {__index = function(t, k) return t[k] end}) return t.x", "C stack overflow"),
            ("local t = {} setmetatable(t, {__index = t}) return t.x", "loop in gettable"),
            (
                "local t = {} t.__lt = function(a, b) return a < b end setmetatable(t, t) return t < t",
                "C stack overflow",
            ),
            (
                "local t = setmetatable({}, {__tostring = function(t) return tostring(t) end}) return tostring(t)",
                "C stack overflow",
            ),
            (
                "return (select(2, loadstring('return ' .. ('-'):rep(1) .. ('not '):rep(1000) .. '1')))",
                "chunk has too many syntax levels",
            ),
            // Matching recurses.
            ("return ('a'):rep(100000):find(('a?'):rep(100000) .. 'b')", "pattern too complex"),
            ("return ('a'):match(('.-'):rep(6000))", "pattern too complex"),
            ("return ('a'):gmatch(('a*'):rep(6000))()", "pattern too complex"),
            ("return (('a'):gsub(('a+'):rep(6000), ''))", "pattern too complex"),
            ("return ('a'):find(('()'):rep(6000))", "pattern too complex"),
            ("return ('x' .. ('a?'):rep(9000)):find(('a?'):rep(9000), 1, true)", "2"),
            ("return tostring(('a'):rep(4999):find(('a?'):rep(4999) .. '$'))", "1"),
            ("return #(('b'):rep(9000)):match(('b'):rep(9000))", "9000"),
            // Values that are deep are no replies, and no documents.
            ("local t = {} for i = 1, 100000 do t = {t} end return cjson.encode(t)", "excessive nesting"),
            ("local t = {} for i = 1, 100000 do t = {t} end return #cmsgpack.pack(t)", "17"),
            ("return cjson.decode(('['):rep(100000))", "too many nested data structures"),
            ("return cmsgpack.unpack(('\\145'):rep(100000))", "stack overflow"),
            ("return struct.unpack(('b'):rep(10000), ('x'):rep(10000))", "too many results"),
        ],
    );
    // Our client does not read replies that are deep.
    for (script, end) in [
        ("local t = {} for i = 1, 100000 do t = {t} end return t", "-ERR reached lua stack limit\r\n"),
        ("local t = {} for i = 1, 100000 do t = {map = {[{1}] = t}} end return t", "-ERR reached lua stack limit\r\n"),
    ] {
        let mut raw = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        raw.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        raw.write_all(&redis::cmd("EVAL").arg(script).arg(0).get_packed_command()).unwrap();
        let (mut got, mut piece) = (Vec::new(), [0; 4096]);
        while !got.ends_with(end.as_bytes()) {
            let len = raw.read(&mut piece).unwrap();
            assert!(len > 0, "{script}: {} bytes", got.len());
            got.extend_from_slice(&piece[..len]);
        }
    }
    for value in ["nil", "true", "1", "{}", "{err = 1}", "{err = {}}", "print", "setmetatable({}, {__index = error})"] {
        answer(c, &format!("error({value})"));
        answer(c, &format!("return redis.error_reply({value})"));
    }
    assert_eq!(run::<String>(c, &["PING"]), "PONG");
}

#[test]
fn strings_have_a_longest_length() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let long = "local s = ('x'):rep(300000000) ";
    for (before, expression) in [
        ("", "('x'):rep(2147483647)"),
        ("", "('xy'):rep(2000000000)"),
        (long, "s .. s"),
        (long, "table.concat({s, s})"),
        (long, "('%s%s'):format(s, s)"),
        (long, "('x'):gsub('x', function() return s .. s end)"),
        (long, "redis.call('del', s, s, s, s)"),
        ("local t = {} for i = 1, 600 do t[i] = ('x'):rep(1000000) end ", "cjson.encode(t)"),
        ("local t = {} for i = 1, 600 do t[i] = ('x'):rep(1000000) end ", "cmsgpack.pack(t)"),
        ("local t = {} for i = 1, 600 do t[i] = ('x'):rep(1000000) end ", "struct.pack(('s'):rep(600), unpack(t))"),
    ] {
        let script = format!(
            "{before} local ok, e = pcall(function() return {expression} end) return tostring(ok) .. ' ' .. tostring(e):sub(1, 60)"
        );
        let got = answer(c, &script);
        assert!(got.starts_with("false") && got.ends_with("not enough memory"), "{expression}: {got}");
        run::<()>(c, &["SCRIPT", "FLUSH"]);
    }
    assert_eq!(caught(c, "('x'):rep(0) .. ('y'):rep(-1) .. ('z'):rep(2147483648.0 * 2 + 1)"), "z");
    assert_eq!(caught(c, "#('abc'):rep(100000) .. ('abc'):rep(2000):sub(-4)"), "300000cabc");
    assert!(answer(c, "return ('x'):rep(2147483647)").contains("not enough memory"));
    assert_answers(
        c,
        &[("cjson.encode_sparse_array(true, 0) return cjson.encode({[1] = 1, [200000000] = 1})", "not enough memory")],
    );
    // What a script fills all memory with is freed with it.
    assert_eq!(answer(c, "return ('x'):rep(70000):sub(1, 3) .. #cjson.encode({('x'):rep(100000)})"), "xxx100004");
}

#[test]
fn an_allocation_that_fails_is_an_error_of_the_script() {
    let dir = tempfile::tempdir().unwrap();
    // A server of a shell that may have little memory.
    let limited = dir.path().join("redis-server");
    std::fs::write(&limited, format!("#!/bin/sh\nulimit -v 1500000\nexec {} \"$@\"\n", common::SERVER)).unwrap();
    std::fs::set_permissions(&limited, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = TestServer::start_binary(&limited, &[]);
    let c = &mut server.connect();
    for script in [
        "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000000) .. i end",
        "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(400000000) .. i end",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 400 do t[i] = ('x'):rep(1000000) end return cjson.encode({t, t, t, t})",
        "local s = ('x'):rep(300000000) local t = {} for i = 1, 10 do t[i] = cmsgpack.pack(s) .. i end",
        "local s = ('x'):rep(300000000) return redis.call('set', s .. 'k', s, s)",
        "local s = ('x'):rep(300000000) return {s, s, s, s}",
    ] {
        let got = answer(c, script);
        assert!(got.contains("not enough memory"), "{script}: {got}");
        assert_eq!(run::<String>(c, &["PING"]), "PONG", "{script}");
    }
}

/// Starts a script that does not end and ends it.
fn kill(server: &TestServer, command: &[&str], kill: &[&str]) -> String {
    let mut slow = server.connect();
    let c = &mut server.connect();
    let mut request = redis::Cmd::new();
    command.iter().for_each(|arg| {
        request.arg(*arg);
    });
    slow.send_packed_command(&request.get_packed_command()).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    wait_for(20, "the script is busy", || try_run::<String>(c, &["GET", "x"]).is_err_and(|e| e.code() == Some("BUSY")));
    run::<()>(c, kill);
    slow.recv_response().map_or_else(|e| e.to_string(), |v| format!("{v:?}"))
}

#[test]
fn every_script_can_be_killed() {
    let server = TestServer::start(&["--busy-reply-threshold", "20"]);
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "xpcall(function() while true do end end, function() while true do end end)",
        "xpcall(error, function() while true do end end)",
        "local function again() return xpcall(function() while true do end end, again) end while true do again() end",
        "local co = coroutine.wrap(function() while true do end end) co()",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "local function f() while true do coroutine.resume(coroutine.create(f)) end end f()",
        "while true do coroutine.wrap(function() for i = 1, 90000 do end end)() end",
        "load(function() return 'x = 1 ' .. '' end) while true do end",
        "load(function() while true do end end)",
        "while true do load(function() return ' ' .. '' end) end",
        "load(math.random)  load(collectgarbage) while true do end",
        "while true do local s = ('x'):rep(100000000) s = s .. 'y' end",
        "local s = ('x'):rep(100000000) while true do pcall(function() s = s:sub(2) .. 'y' end) end",
        "table.insert({1, 2, 3}, -2147483648, 0)",
        "local t = {1} for i = 0, 29 do t[2 ^ i] = 1 end while true do table.remove(t, 1) t[1] = 1 end",
        "while true do cjson.encode(('x'):rep(1000000)) end",
        "while true do redis.pcall('nosuch') end",
        "setmetatable({}, {__index = function(t, k) while true do end end}).x()",
        "for _ in function() while true do end end do end",
        "table.sort({1, 2, 3}, function() while true do end end)",
        "return (('x'):gsub('.', function() while true do end end))",
    ] {
        let got = kill(&server, &["EVAL", script, "0"], &["SCRIPT", "KILL"]);
        assert!(got.contains("Script killed by user with SCRIPT KILL"), "{script}: {got}");
    }
    // A coroutine of a library lives on, and was made when no script could become busy.
    let c = &mut server.connect();
    run::<()>(c, &["CONFIG", "SET", "busy-reply-threshold", "0"]);
    let library = "#!lua name=kept\nlocal co
        redis.register_function('make', function() co = coroutine.wrap(function() coroutine.yield() while true do end end) co() end)
        redis.register_function('go', function() pcall(co) end)";
    run::<()>(c, &["FUNCTION", "LOAD", library]);
    run::<()>(c, &["FCALL", "make", "0"]);
    run::<()>(c, &["CONFIG", "SET", "busy-reply-threshold", "20"]);
    let got = kill(&server, &["FCALL", "go", "0"], &["FUNCTION", "KILL"]);
    assert!(got.contains("Script killed by user"), "{got}");
    for program in ["while true do end", "while true do redis.log(redis.LOG_DEBUG, 'x') end"] {
        let error = try_run::<String>(c, &["FUNCTION", "LOAD", &format!("#!lua name=slow\n{program}")]).unwrap_err();
        assert!(error.to_string().contains("FUNCTION LOAD timeout"), "{program}: {error}");
    }
    assert_eq!(run::<String>(c, &["PING"]), "PONG");
}

#[test]
fn scripts_do_not_change_the_interpreter_for_others() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let read_only = "Attempt to modify a readonly table";
    let later =
        "return loadstring('return type(redis) .. type(string)')() .. tostring(pcall(loadstring('return stolen')))";
    let as_before = "tabletablefalse";
    assert_eq!(answer(c, later), as_before);
    answer(c, "setfenv(0, {redis = 1, string = 1, stolen = 1}) return 1");
    assert_eq!(answer(c, later), as_before);
    assert_answers(
        c,
        &[
            ("getmetatable('').__index = nil", read_only),
            ("getmetatable('').__concat = function() end", read_only),
            ("rawset(getmetatable(''), '__index', nil)", read_only),
            ("getmetatable('').__index.upper = nil", read_only),
            ("string.upper = nil", read_only),
            ("table.insert(getmetatable(''), 1)", read_only),
            ("setmetatable('', {})", "table expected, got string"),
            ("for _, v in pairs({1, true, print, coroutine.create(function() end), cjson.null}) do assert(getmetatable(v) == nil) end return 'none'", "none"),
            ("return tostring(getmetatable(nil)) .. tostring(getmetatable(redis.call))", "nilnil"),
            ("setfenv(redis.call, {})", "cannot change environment of given object"),
            ("setfenv(string.upper, {})", "cannot change environment of given object"),
            ("setfenv(pcall, {})", "cannot change environment of given object"),
            ("getfenv(0).x = 1", read_only),
            ("getfenv(redis.call).x = 1", read_only),
            ("return tostring(rawget(_G, 'newproxy')) .. tostring(rawget(_G, 'package')) .. tostring(rawget(_G, 'debug'))", "nilnilnil"),
            ("return tostring(rawget(_G, 'io')) .. tostring(rawget(_G, 'os')) .. tostring(rawget(_G, 'require'))", "nilnilnil"),
            ("return tostring(rawget(_G, 'dofile')) .. tostring(rawget(_G, 'loadfile')) .. tostring(rawget(_G, 'print'))", "nilnilnil"),
            // Tables have no finalizers.
            ("local n = 0 setmetatable({}, {__gc = function() n = 1 end}) collectgarbage() collectgarbage() return n", "0"),
            // The collector works as it did.
            ("return collectgarbage('stop') .. ' ' .. collectgarbage('setpause', 100000) .. ' ' .. collectgarbage('setstepmul', 0)", "0 200 200"),
            ("collectgarbage('stop') collectgarbage('setpause', 100000) for i = 1, 100000 do local s = ('x'):rep(1000) .. i end
              return tostring(collectgarbage('count') < 20000)", "true"),
            ("return tostring(collectgarbage('step')) .. tostring(collectgarbage()) .. type(gcinfo())", "0number"),
            ("collectgarbage('nosuch')", "invalid option 'nosuch'"),
        ],
    );
}

#[test]
fn replies_cannot_be_forged() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    for script in [
        "return redis.error_reply('A b\\r\\n+forged\\r\\n')",
        "return redis.error_reply('A b\\0\\r\\n+forged\\r\\n')",
        "return redis.status_reply('b\\r\\n+forged\\r\\n')",
        "return {err = 'A b\\r\\n+forged'}",
        "return {ok = 'b\\r\\n+forged'}",
        "return {{err = 'A b\\r\\n+forged'}, {ok = 'b\\n+forged'}}",
        "error('b\\r\\n+forged')",
        "error({err = 'A b\\r\\n+forged'})",
        "return redis.call('nosuch\\r\\n+forged')",
        "return {big_number = '1\\r\\n+forged'}",
        "redis.setresp(3) return {big_number = '1\\r\\n+forged'}",
        "#!lua \"flags=\\r\\n+forged\"\nreturn 1",
        "#!lua \"forged=\\r\\n+forged\"\nreturn 1",
        "#!\"x\\r\\n+forged\"\nreturn 1",
        "return \\r\\n+forged",
        "return (loadstring('\\r\\n+forged x'))()",
    ] {
        let _ = try_run::<redis::Value>(c, &["EVAL", script, "0"]);
        // Whatever came, it was one reply.
        assert_eq!(run::<String>(c, &["ECHO", "honest"]), "honest", "{script}");
    }
    for library in
        ["#!lua \"name=x\\r\\n+forged\"\n", "#!\"x\\r\\n+forged\" name=x\n", "#!lua name=a \"b=\\r\\n+forged\"\n"]
    {
        let _ = try_run::<redis::Value>(c, &["FUNCTION", "LOAD", library]);
        assert_eq!(run::<String>(c, &["ECHO", "honest"]), "honest", "{library}");
    }
}
