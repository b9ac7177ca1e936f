//! The libraries that scripts find beside Lua's own: `cjson`, `cmsgpack`, `struct` and `bit`. Each file has a
//! `register` that makes the library's table; the owner of the interpreter decides under which names scripts see them.
//!
//! Formats: RFC 8259 (JSON), the MessagePack specification (without extension types, as Redis's library).

pub(crate) mod bit;
mod buffer;
mod call;
pub(crate) mod json;
pub(crate) mod msgpack;
pub(crate) mod pack;

#[cfg(test)]
mod tests {
    /// Evaluates an expression with a library as a global: its value, or the text of its error.
    pub(crate) fn eval(name: &str, register: fn(&mlua::Lua) -> mlua::Result<mlua::Table>, code: &str) -> String {
        let lua = mlua::Lua::new();
        lua.globals().set(name, register(&lua).unwrap()).unwrap();
        // On one line, so that errors name line 1.
        let program = [
            "local t = function(ok, ...) local out = {}",
            "for i = 1, select('#', ...) do out[i] = tostring((select(i, ...))) end",
            "return table.concat(out, ' ') end",
            "return t(pcall(function() return",
            code,
            "end))",
        ]
        .join(" ");
        let result: mlua::LuaString = run(&lua, &program);
        String::from_utf8_lossy(&result.as_bytes()).into_owned()
    }

    fn run(lua: &mlua::Lua, program: &str) -> mlua::LuaString {
        lua.load(program).set_name("=test").eval().unwrap()
    }
}
