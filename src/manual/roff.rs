//! Man pages, in the macros of man(7).

use super::directives::{self, Paragraph, changes, default_of};
use super::tools::{self, Opt, Tool};
use super::{File, NOT_OF_REDIS, all_commands};
use crate::cli::{self, syntax};
use crate::sys::build::{HEXAD_VERSION, REDIS_VERSION};
use std::fmt::Write;

pub(super) fn pages() -> Vec<File> {
    let mut pages: Vec<File> =
        tools::all().iter().map(|tool| (format!("man/man1/{}.1", tool.name), page_of(tool))).collect();
    pages.push(("man/man5/redis.conf.5".into(), configuration()));
    pages.push(("man/man7/redis-commands.7".into(), commands()));
    pages
}

/// Text that stands for itself.
pub(super) fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn head(name: &str, section: u8, what: &str) -> String {
    let (title, name) = (escaped(&name.to_uppercase()), escaped(name));
    format!(".TH {title} {section} \"\" \"Hexad {HEXAD_VERSION}\" \"Hexad\"\n.ad l\n.SH NAME\n{name} \\- {what}\n")
}

/// Lines that are shown as they are.
fn example(lines: &str, out: &mut String) {
    out.push_str(".PP\n.nf\n.RS\n");
    lines.lines().for_each(|line| out.push_str(&(escaped(line.trim()) + "\n")));
    out.push_str(".RE\n.fi\n");
}

fn write_options(options: &[Opt], out: &mut String) {
    for Opt { names, placeholder, help, .. } in options {
        let names: Vec<String> = names.iter().map(|name| format!("\\fB{}\\fR", escaped(name))).collect();
        let value = if placeholder.is_empty() { String::new() } else { format!(" \\fI{}\\fR", escaped(placeholder)) };
        let _ = write!(out, ".TP\n{}{value}\n{}\n", names.join(", "), escaped(help));
    }
}

/// What a page says besides options.
struct Words {
    what: &'static str,
    synopsis: &'static [&'static str],
    description: &'static str,
    see_also: &'static str,
}

fn words(tool: &str) -> Words {
    match tool {
        "redis-server" => Words {
            what: "a Redis server and node of a Redis Cluster",
            synopsis: &[
                "redis-server [/path/to/redis.conf] [--directive value ...] [-]",
                "redis-server --test-memory <megabytes>",
            ],
            description: "Runs a server until it is told to end by SIGTERM, SIGINT or SHUTDOWN. The configuration comes from a file, from \
                          standard input (\"-\"), and from options, which count as if they stood at the end of the file. Without any of \
                          them the defaults hold: port 6379, clients of this machine alone.",
            see_also: "redis-cli(1), redis.conf(5), redis-commands(7)",
        },
        "redis-cli" => Words {
            what: "talks to a Redis server and manages clusters",
            synopsis: &[
                "redis-cli [options] [command [argument ...]]",
                "redis-cli --cluster <command> [arguments] [options]",
            ],
            description: "Sends one command and prints the reply, or prompts for commands if there is none on the command line. Options end \
                          where the command begins.",
            see_also: "redis-server(1), redis-commands(7)",
        },
        "redis-benchmark" => Words {
            what: "puts a load on a Redis server and tells how fast it answers",
            synopsis: &["redis-benchmark [options] [command [argument ...]]"],
            description: "Runs a list of tests, or the command that is given in their place.",
            see_also: "redis-server(1)",
        },
        "redis-check-aof" => Words {
            what: "looks for damage in an append only file, and cuts it off",
            synopsis: &["redis-check-aof [--fix|--truncate-to-timestamp <seconds>] <file.manifest|file.aof>"],
            description: "Reads the file, or all files of a manifest, and tells where it stops making sense. Copy the files before they are \
                          mended: what comes after the damage is lost.",
            see_also: "redis-server(1), redis-check-rdb(1)",
        },
        _ => Words {
            what: "looks for damage in a snapshot",
            synopsis: &["redis-check-rdb <file.rdb>"],
            description: "Reads a snapshot and tells what is wrong with it, and at which key.",
            see_also: "redis-server(1), redis-check-aof(1)",
        },
    }
}

fn page_of(tool: &Tool) -> String {
    let words = words(tool.name);
    let mut out = head(tool.name, 1, words.what);
    out.push_str(".SH SYNOPSIS\n");
    words.synopsis.iter().for_each(|line| {
        let _ = write!(out, ".B {}\n.br\n", escaped(line));
    });
    let _ = write!(out, ".SH DESCRIPTION\n{}\n", escaped(words.description));
    if tool.name == "redis-server" {
        let own = |o: &&Opt| o.placeholder != "<value>";
        let options: Vec<Opt> = tool.options.iter().filter(own).cloned().collect();
        out.push_str(".SH OPTIONS\nEvery directive of redis.conf(5) is an option.\n");
        write_options(&options, &mut out);
        out.push_str(".SH SIGNALS\nSIGTERM and SIGINT end the server as shutdown\\-on\\-sigterm and shutdown\\-on\\-sigint say.\n");
    } else if !tool.options.is_empty() {
        out.push_str(".SH OPTIONS\n");
        write_options(&tool.options, &mut out);
    }
    if tool.name == "redis-cli" {
        out.push_str(".SH CLUSTER COMMANDS\n");
        for (name, args, options) in cli::cluster_texts() {
            let _ = write!(out, ".TP\n\\fB{}\\fR {}\n", escaped(name), escaped(args));
            let options: Vec<String> = options.iter().map(|o| escaped(&format!("--cluster-{o}"))).collect();
            out.push_str(&(if options.is_empty() { "No options.".into() } else { options.join(", ") } + "\n"));
        }
        out.push_str(
            ".SH ENVIRONMENT\n.TP\n.B REDISCLI_AUTH\nThe password, as of \\-a.\n.TP\n.B REDISCLI_CLUSTER_YES\n1: as \
             \\-\\-cluster\\-yes.\n.TP\n.B REDISCLI_HISTFILE\nWhere typed lines are kept (~/.rediscli_history); /dev/null: \
             nowhere.\n.TP\n.B REDISCLI_RCFILE\nPreferences of the prompt (~/.redisclirc).\n.TP\n.B NO_COLOR\nNo colours.\n",
        );
    }
    let examples = [("redis-cli", cli::EXAMPLES), ("redis-benchmark", crate::bench::EXAMPLES)];
    for (_, lines) in examples.iter().filter(|(name, _)| *name == tool.name) {
        out.push_str(".SH EXAMPLES\n");
        example(lines, &mut out);
    }
    let _ = write!(out, ".SH SEE ALSO\n{}\n", escaped(words.see_also));
    out
}

fn configuration() -> String {
    let (intro, sections) = directives::read();
    let mut out = head("redis.conf", 5, "configuration of redis\\-server");
    out.push_str(".SH DESCRIPTION\n");
    intro.iter().for_each(|p| write_paragraph(p, &mut out));
    for section in sections {
        let _ = writeln!(out, ".SH {}", escaped(&section.title.to_uppercase()));
        section.paragraphs.iter().for_each(|p| write_paragraph(p, &mut out));
    }
    out.push_str(".SH SEE ALSO\nredis\\-server(1), redis\\-cli(1)\n");
    out
}

fn write_paragraph(p: &Paragraph, out: &mut String) {
    let _ = write!(out, ".PP\n{}\n", escaped(&p.text));
    if !p.example.is_empty() {
        example(&p.example.join("\n"), out);
    }
    for row in &p.rows {
        let also = row.aliases.iter().map(|name| format!(", {name}")).collect::<String>();
        let (name, default) = (escaped(&format!("{}{also}", row.name)), escaped(&default_of(row)));
        let _ = write!(out, ".TP\n.B {name}\n{}. Default: {default}. Can be changed: ", escaped(&row.values()));
        let _ = writeln!(out, "{}.", changes(row));
    }
}

fn commands() -> String {
    let mut out = head("redis-commands", 7, "the commands of a Redis server");
    let _ = write!(
        out,
        ".SH DESCRIPTION\nWhat redis\\-server understands: the commands of Redis {REDIS_VERSION} \
         and {NOT_OF_REDIS}. Each with the version that first had it.\n.SH COMMANDS\n"
    );
    for (words, row) in all_commands() {
        let _ = write!(out, ".TP\n.B {}\n{}\n.br\n", escaped(&words), escaped(&syntax(row)));
        let cost = row.complexity.trim_end_matches('.');
        let _ = writeln!(out, "{} {}. Since {}.", escaped(row.summary), escaped(cost), row.since);
    }
    out.push_str(".SH SEE ALSO\nredis\\-cli(1), redis\\-server(1)\n");
    out
}
