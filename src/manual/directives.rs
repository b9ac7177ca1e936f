//! The directives in the order of `conf/redis.conf`, with what it says of them.

use crate::config::{Config, Row, TABLE, flag, lookup};

/// The file that explains the directives.
const FILE: &str = include_str!("../../conf/redis.conf");

/// A part of the file under a heading.
pub(super) struct Section {
    pub(super) title: String,
    pub(super) paragraphs: Vec<Paragraph>,
}

/// What is said of one directive or of several together.
#[derive(Default)]
pub(super) struct Paragraph {
    pub(super) text: String,
    /// Lines to be shown as they are.
    pub(super) example: Vec<String>,
    pub(super) rows: Vec<&'static Row>,
    /// Lines in use in the file: other than the default.
    pub(super) shipped: Vec<String>,
}

/// What the file says of files like it, and its sections. Directives that it does not name come last.
pub(super) fn read() -> (Vec<Paragraph>, Vec<Section>) {
    let mut intro = Vec::new();
    let mut sections: Vec<Section> = Vec::new();
    let mut paragraph = Paragraph::default();
    for line in FILE.lines().chain([""]) {
        let is_heading = line.starts_with("####");
        // Within the sections an example has such lines around it.
        let is_blank = line.is_empty() || (line == "#" && sections.is_empty());
        if is_heading || is_blank {
            let done = std::mem::take(&mut paragraph);
            if !done.is_empty() {
                sections.last_mut().map_or(&mut intro, |s| &mut s.paragraphs).push(done);
            }
            if is_heading {
                sections.push(Section { title: line.trim_matches(['#', ' ']).to_owned(), paragraphs: Vec::new() });
            }
        } else {
            paragraph.add(line);
        }
    }
    // Its first words are about itself.
    let intro = intro.into_iter().skip_while(|p: &Paragraph| !p.text.starts_with("A line is")).collect();
    let is_named =
        |row: &Row| sections.iter().flat_map(|s| &s.paragraphs).flat_map(|p| &p.rows).any(|r| r.name == row.name);
    let rest: Vec<&Row> = TABLE.iter().filter(|row| !is_named(row)).collect();
    let text = "Not in the file. They are for tests, or do nothing and are taken so that files that have them load.";
    let rest = Paragraph { text: text.into(), rows: rest, ..Paragraph::default() };
    sections.push(Section { title: "Others".into(), paragraphs: vec![rest] });
    (intro, sections)
}

impl Paragraph {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.example.is_empty() && self.rows.is_empty()
    }

    fn add(&mut self, line: &str) {
        let comment = line.strip_prefix('#');
        if let Some(example) = comment.and_then(|text| text.strip_prefix("     ")) {
            self.example.push(example.to_owned());
            if let Some(row) = first_word(example).and_then(|name| lookup(name.as_bytes())) {
                self.name(row.0);
            }
        } else if let Some(text) = comment.and_then(|text| text.strip_prefix(' ')) {
            self.text = if self.text.is_empty() { text.to_owned() } else { format!("{} {text}", self.text) };
        } else if comment != Some("") {
            let directive = comment.unwrap_or(line);
            let row = first_word(directive).and_then(|name| lookup(name.as_bytes()));
            row.into_iter().for_each(|(row, _)| self.name(row));
            if comment.is_none() {
                self.shipped.push(line.to_owned());
            }
        }
    }

    fn name(&mut self, row: &'static Row) {
        if !self.rows.iter().any(|other| other.name == row.name) {
            self.rows.push(row);
        }
    }
}

fn first_word(line: &str) -> Option<&str> {
    line.split_whitespace().next()
}

/// The value that holds where none is given.
pub(super) fn default_of(row: &Row) -> String {
    let value = match row.name {
        "dir" => String::from("./"),
        _ => String::from_utf8_lossy(&row.print(&Config::default())).into_owned(),
    };
    if value.is_empty() { String::from("\"\"") } else { value }
}

/// When the value can be changed, or that it does nothing.
pub(super) fn changes(row: &Row) -> &'static str {
    if row.has(flag::NO_EFFECT) {
        "no effect"
    } else if row.has(flag::IMMUTABLE) {
        "at start"
    } else if row.has(flag::PROTECTED) {
        "at start, or as enable-protected-configs says"
    } else {
        "at run time"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_understood() {
        let (intro, sections) = read();
        assert_eq!(intro.len(), 2);
        assert!(intro[0].text.starts_with("A line is a directive and its values"), "{}", intro[0].text);
        let titles: Vec<&str> = sections.iter().map(|s| s.title.as_str()).collect();
        assert_eq!((titles[0], titles[1], *titles.last().unwrap()), ("Other files", "Network", "Others"));
        let bind = &sections[1].paragraphs[0];
        assert!(bind.text.starts_with("Addresses to listen on. \"*\" is every IPv4 address"));
        assert_eq!(bind.rows.iter().map(|row| row.name).collect::<Vec<_>>(), ["bind"]);
        assert_eq!(bind.shipped, ["bind 127.0.0.1 -::1"]);
        assert_eq!((default_of(bind.rows[0]).as_str(), changes(bind.rows[0])), ("* -::*", "at run time"));
        let replicaof = sections.iter().flat_map(|s| &s.paragraphs).find(|p| p.text.starts_with("Be a copy")).unwrap();
        assert_eq!((replicaof.example[0].as_str(), replicaof.rows[0].name), ("replicaof 192.0.2.1 6379", "replicaof"));
        let rest = sections.last().unwrap();
        assert!(rest.paragraphs[0].rows.iter().all(|row| row.has(flag::HIDDEN)), "others are told of in the file");
    }
}
