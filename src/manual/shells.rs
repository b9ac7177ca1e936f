//! Completions for bash, zsh and fish: options with their values, and for redis-cli the commands of the server, their
//! subcommands and the words that may stand among their arguments.

use super::tools::{self, Opt, Tool, Value};
use super::{File, all_commands};
use crate::catalog::row::Arg;
use std::collections::BTreeMap;
use std::fmt::Write;

pub(super) fn completions() -> Vec<File> {
    let words = Words::of_commands();
    let of_tool = |tool: Tool| {
        let name = tool.name;
        [
            (format!("bash-completion/completions/{name}"), bash(&tool, &words)),
            (format!("zsh/site-functions/_{name}"), zsh(&tool, &words)),
            (format!("fish/vendor_completions.d/{name}.fish"), fish(&tool, &words)),
        ]
    };
    tools::all().into_iter().flat_map(of_tool).collect()
}

/// What may be typed after what, in small letters but for the words among arguments.
struct Words {
    /// Commands with what they do.
    commands: BTreeMap<String, &'static str>,
    subcommands: BTreeMap<String, BTreeMap<String, &'static str>>,
    /// By the command, or by it and its subcommand.
    tokens: BTreeMap<String, Vec<&'static str>>,
}

impl Words {
    fn of_commands() -> Words {
        let mut words = Words { commands: BTreeMap::new(), subcommands: BTreeMap::new(), tokens: BTreeMap::new() };
        for (name, row) in all_commands() {
            let name = name.to_lowercase();
            match name.split_once(' ') {
                None => drop(words.commands.insert(name.clone(), row.summary)),
                Some((container, sub)) => {
                    words.commands.entry(container.to_owned()).or_insert("Has subcommands.");
                    words.subcommands.entry(container.to_owned()).or_default().insert(sub.to_owned(), row.summary);
                }
            }
            let mut tokens = Vec::new();
            add_tokens(row.args, &mut tokens);
            if !tokens.is_empty() {
                words.tokens.insert(name, tokens);
            }
        }
        words
    }
}

fn add_tokens(args: &[Arg], tokens: &mut Vec<&'static str>) {
    for arg in args {
        let is_word = |token: &&str| token.bytes().all(|b| b.is_ascii_alphabetic()) && !token.is_empty();
        tokens.extend(arg.token.filter(is_word).filter(|token| !tokens.contains(token)));
        add_tokens(arg.args, tokens);
    }
}

/// A text in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn function_of(tool: &Tool) -> String {
    format!("_{}", tool.name.replace('-', "_"))
}

fn names(options: &[Opt], is_one: impl Fn(&Value) -> bool) -> Vec<&str> {
    options.iter().filter(|o| is_one(&o.value)).flat_map(|o| &o.names).map(String::as_str).collect()
}

fn joined<'a>(words: impl Iterator<Item = &'a String>) -> String {
    words.map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// What a command and the word after it match in a `case` of bash or zsh, with a colon between them.
fn pattern(command: &str) -> String {
    match command.split_once(' ') {
        Some((container, sub)) => format!("{container}:{sub}"),
        None => format!("{command}:*"),
    }
}

fn bash(tool: &Tool, words: &Words) -> String {
    let (name, function) = (tool.name, function_of(tool));
    let mut out = format!(
        "# bash completion for {name}\n{function}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} words
    COMPREPLY=()\n"
    );
    let mut others = String::from("        *) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n");
    if tool.takes_command {
        complete_command_in_bash(&mut out, tool, words);
        let commands = joined(words.commands.keys());
        others = format!(
            "        [A-Z]*) [ -n \"$cluster\" ] || words='{}' ;;\n        *) [ -n \"$cluster\" ] || words='{commands}' ;;\n",
            commands.to_uppercase()
        );
    }
    let options = joined(tool.options.iter().flat_map(|o| &o.names));
    let _ = write!(
        out,
        "    case $prev in\n{}    *)\n        case $cur in\n        -*) words='{options}' ;;\n{others}        esac ;;\n    esac
    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}}\ncomplete -o filenames -F {function} {name}\n",
        values_in_bash(&tool.options)
    );
    out
}

/// What completes the values of options: lines of a `case` of the word before.
fn values_in_bash(options: &[Opt]) -> String {
    let mut out = String::new();
    for option in options {
        if let Value::Word(choices) = &option.value {
            let _ = writeln!(out, "    {}) words='{}' ;;", option.names.join(" | "), choices.join(" "));
        }
    }
    let (paths, others) = (names(options, |v| *v == Value::Path), names(options, |v| *v == Value::Anything));
    if !paths.is_empty() {
        let _ = writeln!(out, "    {}) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;", paths.join(" | "));
    }
    if !others.is_empty() {
        let _ = writeln!(out, "    {}) return ;;", others.join(" | "));
    }
    out
}

/// Looks for a command, and completes what comes after it.
fn complete_command_in_bash(out: &mut String, tool: &Tool, words: &Words) {
    let with_value = names(&tool.options, |v| *v != Value::Nothing).join(" | ");
    let _ = write!(
        out,
        "    local i=1 command= sub= cluster=
    while [ \"$i\" -lt \"$COMP_CWORD\" ]; do
        case ${{COMP_WORDS[i]}} in
        --cluster) cluster=1; i=$((i + 2)) ;;
        {with_value}) i=$((i + 2)) ;;
        -*) i=$((i + 1)) ;;
        *) [ -z \"$cluster\" ] || {{ i=$((i + 1)); continue; }}
            command=${{COMP_WORDS[i],,}}
            [ \"$((i + 1))\" -ge \"$COMP_CWORD\" ] || sub=${{COMP_WORDS[i + 1],,}}
            break ;;
        esac
    done
    if [ -n \"$command\" ]; then
        case $command:$sub in
"
    );
    for (command, subs) in &words.subcommands {
        let _ = writeln!(out, "        {command}:) words='{}' ;;", joined(subs.keys()));
    }
    for (command, tokens) in &words.tokens {
        let _ = writeln!(out, "        {}) words='{}' ;;", pattern(command), tokens.join(" "));
    }
    out.push_str(
        "        esac
        # In the letters that were begun with.
        case $cur in
        [A-Z]*) words=${words^^} ;;
        [a-z]*) words=${words,,} ;;
        esac
        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))
        return
    fi
",
    );
}

/// A text within an item of zsh's `_arguments` and `_describe`.
fn for_zsh(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:").replace('[', "\\[").replace(']', "\\]")
}

fn zsh(tool: &Tool, words: &Words) -> String {
    let mut out = format!("#compdef {}\n", tool.name);
    let described = |entries: &BTreeMap<String, &str>| {
        let lines =
            entries.iter().map(|(name, what)| format!("    {}\n", quoted(&format!("{name}:{}", for_zsh(what)))));
        lines.collect::<String>()
    };
    out.push_str(
        "local curcontext=$curcontext state line\nlocal -a commands subcommands tokens\n_arguments -A '-*' \\\n",
    );
    for Opt { names, placeholder, value, help } in &tool.options {
        let what = for_zsh(placeholder.trim_matches(['<', '>']));
        let after = match value {
            Value::Nothing => String::new(),
            Value::Path => format!(":{what}:_files"),
            Value::Word(choices) => format!(":{what}:({})", choices.join(" ")),
            Value::Anything => format!(":{what}:"),
        };
        for name in names {
            let _ = writeln!(out, "    {} \\", quoted(&format!("{name}[{}]{after}", for_zsh(help))));
        }
    }
    if !tool.takes_command {
        out.push_str("    '*:file:_files'\n");
        return out;
    }
    out.push_str("    '*::command:->command' && return 0\n[[ $state == command ]] || return 1\n");
    let _ = write!(
        out,
        "local fold='m:{{a-zA-Z}}={{A-Za-z}}'\nif (( CURRENT == 1 )); then\n  commands=(\n{}  )\n",
        described(&words.commands)
    );
    out.push_str("  _describe -t commands command commands -M $fold\n  return\nfi\nif (( CURRENT == 2 )); then\n  case ${(L)words[1]} in\n");
    for (command, subs) in &words.subcommands {
        let _ = write!(out, "  {command}) subcommands=(\n{}  ) ;;\n", described(subs));
    }
    out.push_str(
        "  esac\n  (( ! $#subcommands )) || { _describe -t subcommands subcommand subcommands -M $fold; return }\nfi\n",
    );
    out.push_str("case ${(L)words[1]}:${(L)words[2]} in\n");
    for (command, tokens) in &words.tokens {
        let _ = writeln!(out, "{}) tokens=({}) ;;", pattern(command), tokens.join(" "));
    }
    out.push_str("esac\n(( ! $#tokens )) || compadd -M $fold -a tokens\n");
    out
}

fn fish(tool: &Tool, words: &Words) -> String {
    let name = tool.name;
    let mut out = format!("# fish completion for {name}\n");
    for Opt { names, value, help, .. } in &tool.options {
        let _ = write!(out, "complete -c {name}");
        for option in names {
            let _ = match (option.strip_prefix("--"), option.strip_prefix('-')) {
                (Some(long), _) => write!(out, " -l {long}"),
                (None, Some(short)) if short.len() == 1 => write!(out, " -s {short}"),
                (None, _) => write!(out, " -o {}", option.trim_start_matches('-')),
            };
        }
        let _ = match value {
            Value::Nothing => write!(out, " -f"),
            Value::Path => write!(out, " -r -F"),
            Value::Word(choices) => write!(out, " -x -a {}", for_fish(&choices.join(" "))),
            Value::Anything => write!(out, " -x"),
        };
        let _ = writeln!(out, " -d {}", for_fish(help));
    }
    if tool.takes_command {
        complete_command_in_fish(&mut out, tool, words);
    }
    out
}

fn complete_command_in_fish(out: &mut String, tool: &Tool, words: &Words) {
    let (name, function) = (tool.name, format!("_{}", function_of(tool)));
    let with_value = names(&tool.options, |v| *v != Value::Nothing).join(" ");
    let _ = write!(
        out,
        "\n# The command and its words before the one that is typed, in small letters.
function {function}_words
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case --cluster
                echo -- $words[1]
                return
            case {with_value}
                set -e words[1]
                set -q words[1]; and set -e words[1]
            case '-*'
                set -e words[1]
            case '*'
                break
        end
    end
    string lower -- $words
end
# Whether these words come first among them.
function {function}_in
    set -l words ({function}_words)
    set -l n (count $argv)
    test (count $words) -ge $n; and test \"$words[1..$n]\" = \"$argv\"
end
complete -c {name} -f
"
    );
    let mut line = |condition: &str, word: &str, what: &str| {
        let what = if what.is_empty() { String::new() } else { format!(" -d {}", for_fish(what)) };
        let _ = writeln!(out, "complete -c {name} -n '{condition}' -a '{word}'{what}");
    };
    for (command, what) in &words.commands {
        line(&format!("test (count ({function}_words)) = 0"), command, what);
    }
    for (command, subs) in &words.subcommands {
        for (sub, what) in subs {
            line(&format!("test \"$({function}_words)\" = {command}"), sub, what);
        }
    }
    for (command, tokens) in &words.tokens {
        line(&format!("{function}_in {command}"), &tokens.join(" "), "");
    }
}

/// A text in single quotes, in which fish knows two escapes.
fn for_fish(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
