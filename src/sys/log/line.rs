//! What a line of the log looks like: as Redis writes it, or as `key=value` pairs or JSON for machines.
//!
//! Nothing here allocates or takes a lock, so that lines can be made in a signal handler.

use std::fmt::{self, Display, Formatter, Write};
use std::time::Duration;

/// How a line is laid out (`log-format`). Legacy and logfmt are as Valkey has them, JSON is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// `<pid>:<role> <time> <level> <message>`, as Redis does.
    Legacy,
    Logfmt,
    Json,
}

/// How a line tells the time (`log-timestamp-format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogTimestamp {
    /// `22 Nov 2026 11:13:42.123`, in local time. In JSON ISO 8601, as this form does not tell the zone.
    Legacy,
    Iso8601,
    /// Milliseconds since 1970.
    Milliseconds,
}

/// Who writes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Nobody yet knows what this server is to be.
    Starting,
    Master,
    Replica,
    Child,
    SignalHandler,
}

impl Writer {
    fn letter(self) -> &'static str {
        match self {
            Writer::Starting | Writer::Child => "C",
            Writer::Master => "M",
            Writer::Replica => "S",
            Writer::SignalHandler => "signal-handler",
        }
    }

    /// As Valkey's logfmt calls it.
    fn logfmt(self) -> &'static str {
        match self {
            Writer::Starting | Writer::Child => "RDB/AOF",
            Writer::Master => "primary",
            Writer::Replica => "replica",
            Writer::SignalHandler => "signal-handler",
        }
    }

    fn json(self) -> &'static str {
        match self {
            Writer::Starting => "start",
            Writer::Child => "child",
            Writer::Master => "master",
            Writer::Replica => "replica",
            Writer::SignalHandler => "signal-handler",
        }
    }
}

/// A line, with its end. The message has no control characters.
pub(super) struct Line<'a> {
    pub(super) format: LogFormat,
    pub(super) timestamp: LogTimestamp,
    pub(super) pid: u32,
    pub(super) writer: Writer,
    pub(super) since_epoch: Duration,
    /// Seconds east of UTC.
    pub(super) utc_offset: i64,
    pub(super) level: log::Level,
    pub(super) message: &'a str,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (Line { pid, writer, message, .. }, time) = (self, Time(self));
        match self.format {
            LogFormat::Legacy => writeln!(f, "{pid}:{} {time} {} {message}", writer.letter(), mark(self.level)),
            LogFormat::Logfmt => {
                let (role, level) = (writer.logfmt(), level_name(self.level, "info"));
                write!(f, "pid={pid} role={role} timestamp=\"{time}\" level={level} message=\"")?;
                // Valkey's has no way to write a quote. Whoever reads values in quotes takes a backslash for an escape.
                message.chars().try_for_each(|c| match c {
                    '"' => f.write_char('\''),
                    '\\' => f.write_str("\\\\"),
                    c => f.write_char(c),
                })?;
                f.write_str("\"\n")
            }
            LogFormat::Json => {
                let (role, level) = (writer.json(), level_name(self.level, "verbose"));
                let quote = if self.timestamp == LogTimestamp::Milliseconds { "" } else { "\"" };
                write!(
                    f,
                    "{{\"pid\":{pid},\"role\":\"{role}\",\"timestamp\":{quote}{time}{quote},\"level\":\"{level}\","
                )?;
                f.write_str("\"message\":\"")?;
                write_escaped(message, f)?;
                f.write_str("\"}\n")
            }
        }
    }
}

fn write_escaped(text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        '"' | '\\' => write!(f, "\\{c}"),
        c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c)),
        c => f.write_char(c),
    })
}

struct Time<'a>(&'a Line<'a>);

impl Display for Time<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Line { since_epoch, utc_offset, format, timestamp, .. } = *self.0;
        let millis = since_epoch.subsec_millis();
        // Milliseconds do without the calendar.
        let local = || Date::of(since_epoch.as_secs() as i64 + utc_offset);
        match timestamp {
            LogTimestamp::Legacy if format != LogFormat::Json => write!(f, "{}.{millis:03}", local()),
            LogTimestamp::Legacy | LogTimestamp::Iso8601 => {
                let local = local();
                let Date { year, month, day, .. } = local;
                let (hour, minute, second) = local.clock();
                write!(f, "{year}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}", month + 1)?;
                let (sign, east) = (if utc_offset < 0 { '-' } else { '+' }, utc_offset.abs());
                write!(f, "{sign}{:02}:{:02}", east / 3600, east / 60 % 60)
            }
            LogTimestamp::Milliseconds => write!(f, "{}", since_epoch.as_millis()),
        }
    }
}

/// How a line of Redis shows its level.
fn mark(level: log::Level) -> char {
    match level {
        log::Level::Error | log::Level::Warn => '#',
        log::Level::Info => '*',
        log::Level::Debug => '-',
        log::Level::Trace => '.',
    }
}

fn level_name(level: log::Level, verbose: &'static str) -> &'static str {
    match level {
        log::Level::Error | log::Level::Warn => "warning",
        log::Level::Info => "notice",
        log::Level::Debug => verbose,
        log::Level::Trace => "debug",
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A date of the calendar, with the time of the day. Shown as `22 Nov 2026 11:13:42`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Date {
    year: i64,
    /// From 0.
    month: usize,
    day: i64,
    second_of_day: i64,
}

impl Date {
    /// For seconds since 1970.
    pub(super) fn of(seconds: i64) -> Date {
        let (mut days, second_of_day) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
        let mut year = 1970;
        let is_leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        // Cycles of 400 years have equal lengths, so the loop below stays short.
        year += 400 * days.div_euclid(146_097);
        days = days.rem_euclid(146_097);
        loop {
            let length = if is_leap(year) { 366 } else { 365 };
            if days < length {
                break;
            }
            days -= length;
            year += 1;
        }
        let february = if is_leap(year) { 29 } else { 28 };
        let mut month = 0;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        Date { year, month, day: days + 1, second_of_day }
    }

    fn clock(self) -> (i64, i64, i64) {
        (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60)
    }

    /// `Nov 22 11:13:42`, as syslog has it: a space takes the place of a day's leading zero.
    pub(super) fn for_syslog(self) -> impl Display {
        struct Shown(Date);
        impl Display for Shown {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                let (date, (hour, minute, second)) = (self.0, self.0.clock());
                write!(f, "{} {:>2} {hour:02}:{minute:02}:{second:02}", MONTHS[date.month], date.day)
            }
        }
        Shown(self)
    }
}

impl Display for Date {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (hour, minute, second) = self.clock();
        write!(f, "{:02} {} {} {hour:02}:{minute:02}:{second:02}", self.day, MONTHS[self.month], self.year)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "01 Jan 1970 00:00:00"),
            (951_782_400, "29 Feb 2000 00:00:00"),
            (1_709_251_199, "29 Feb 2024 23:59:59"),
            (1_709_251_200, "01 Mar 2024 00:00:00"),
            (1_795_346_022, "22 Nov 2026 11:13:42"),
            (4_107_542_400, "01 Mar 2100 00:00:00"),
            (-1, "31 Dec 1969 23:59:59"),
            (253_402_300_799, "31 Dec 9999 23:59:59"),
        ] {
            assert_eq!(Date::of(seconds).to_string(), expected);
        }
    }

    #[test]
    fn a_line_has_the_shape_that_was_asked_for() {
        let line = |format, timestamp, writer, message| {
            let since_epoch = Duration::from_millis(1_795_346_022_007);
            let level = log::Level::Debug;
            Line { format, timestamp, pid: 7, writer, since_epoch, utc_offset: -12600, level, message }.to_string()
        };
        let said = "it's \"so\" \\ é";
        use LogFormat::{Json, Legacy, Logfmt};
        use LogTimestamp as At;
        for (format, timestamp, writer, expected) in [
            (Legacy, At::Legacy, Writer::Master, "7:M 22 Nov 2026 07:43:42.007 - it's \"so\" \\ é\n"),
            (Legacy, At::Iso8601, Writer::Child, "7:C 2026-11-22T07:43:42.007-03:30 - it's \"so\" \\ é\n"),
            (Legacy, At::Milliseconds, Writer::Replica, "7:S 1795346022007 - it's \"so\" \\ é\n"),
            (
                Logfmt,
                At::Legacy,
                Writer::Master,
                "pid=7 role=primary timestamp=\"22 Nov 2026 07:43:42.007\" level=info message=\"it's 'so' \\\\ é\"\n",
            ),
            (
                Logfmt,
                At::Milliseconds,
                Writer::Child,
                "pid=7 role=RDB/AOF timestamp=\"1795346022007\" level=info message=\"it's 'so' \\\\ é\"\n",
            ),
            (
                Json,
                At::Legacy,
                Writer::Replica,
                "{\"pid\":7,\"role\":\"replica\",\"timestamp\":\"2026-11-22T07:43:42.007-03:30\",\"level\":\"verbose\",\
                 \"message\":\"it's \\\"so\\\" \\\\ é\"}\n",
            ),
            (
                Json,
                At::Milliseconds,
                Writer::Starting,
                "{\"pid\":7,\"role\":\"start\",\"timestamp\":1795346022007,\"level\":\"verbose\",\
                 \"message\":\"it's \\\"so\\\" \\\\ é\"}\n",
            ),
        ] {
            assert_eq!(line(format, timestamp, writer, said), expected);
        }
        assert!(line(Json, At::Legacy, Writer::Master, "\u{1}").ends_with("\"message\":\"\\u0001\"}\n"));
    }
}
