//! The value of a figure as INFO and scrapes show it, and what a scrape says of it. The rows, with where each value comes
//! from, are in `server/admin/info/`.

use std::borrow::Cow;
use std::fmt::{Display, Write};

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// May rise and fall.
    Gauge,
    /// Only rises, until the server restarts or CONFIG RESETSTAT.
    Counter,
    /// Counts by upper bounds.
    Histogram,
    /// Quantiles.
    Summary,
}

/// How a scrape shows a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// The name of its samples, whole.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    /// What one unit of INFO's is in the metric's.
    pub(crate) unit: f64,
}

impl Metric {
    pub(crate) const fn new(kind: Kind, name: &'static str, help: &'static str) -> Metric {
        Metric { name, kind, help, unit: 1.0 }
    }
}

/// Counts or quantiles of many durations.
pub(crate) struct Distribution {
    /// Of a histogram: upper bounds with how many are not greater; of a summary: quantiles with their values.
    pub(crate) parts: Vec<(f64, f64)>,
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

/// The value of a figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Int(i64),
    Count(u64),
    /// Two decimals in INFO.
    Decimal(f64),
    /// Two decimals and a percent sign in INFO.
    Percent(f64),
    /// Microseconds; INFO shows seconds with six decimals.
    Micros(u64),
    /// `ok` or `err` in INFO.
    Ok(bool),
    Text(Cow<'static, str>),
    /// Nothing is to be shown.
    Absent,
}

impl Value {
    /// The number that a scrape shows.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(*n as f64),
            Value::Count(n) => Some(*n as f64),
            Value::Decimal(x) => Some(*x),
            Value::Micros(us) => Some(*us as f64 / 1e6),
            Value::Ok(is_ok) => Some(f64::from(u8::from(*is_ok))),
            Value::Percent(_) | Value::Text(_) | Value::Absent => None,
        }
    }

    /// Appends it as INFO shows it.
    pub(crate) fn write(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = match self {
            Value::Int(n) => out.write_str(itoa::Buffer::new().format(*n)),
            Value::Count(n) => out.write_str(itoa::Buffer::new().format(*n)),
            Value::Decimal(x) => write!(out, "{x:.2}"),
            Value::Percent(x) => write!(out, "{x:.2}%"),
            Value::Micros(us) => write!(out, "{}.{:06}", us / 1_000_000, us % 1_000_000),
            Value::Ok(is_ok) => out.write_str(if *is_ok { "ok" } else { "err" }),
            Value::Text(text) => out.write_str(text),
            Value::Absent => Ok(()),
        };
    }

    /// The value, or nothing if this does not hold.
    pub(crate) fn only_if(self, holds: bool) -> Value {
        if holds { self } else { Value::Absent }
    }

    pub(crate) fn text(text: impl Display) -> Value {
        Value::Text(text.to_string().into())
    }
}

macro_rules! from_numbers {
    ($($type:ty => $variant:ident($into:ty)),*) => {$(
        impl From<$type> for Value {
            fn from(n: $type) -> Value {
                Value::$variant(n as $into)
            }
        }
    )*};
}
from_numbers!(u8 => Count(u64), u16 => Count(u64), u32 => Count(u64), u64 => Count(u64), usize => Count(u64), i64 => Int(i64), bool => Count(u64));

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Value {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_info_has_them_and_counted_as_scrapes_do() {
        for (value, shown, number) in [
            (Value::from(-3i64), "-3", Some(-3.0)),
            (Value::from(true), "1", Some(1.0)),
            (Value::Decimal(1.005), "1.00", Some(1.005)),
            (Value::Percent(99.999), "100.00%", None),
            (Value::Micros(1_000_050), "1.000050", Some(1.000_05)),
            (Value::Ok(false), "err", Some(0.0)),
            (Value::from("slave"), "slave", None),
        ] {
            let mut text = String::new();
            value.write(&mut text);
            assert_eq!((text.as_str(), value.number()), (shown, number));
        }
    }
}
