//! A row: what INFO shows on a line and a scrape as a sample. A figure that is in INFO alone has no [`Metric`], one that is in
//! scrapes alone has no name in INFO.

use super::Facts;
use crate::admin::figure::{Distribution, Kind, Metric, Value};

/// Takes a line: name and value.
pub(crate) type Lined<'a> = dyn FnMut(&str, Value) + 'a;
/// Takes a sample: labels and value.
pub(crate) type Sampled<'a> = dyn FnMut(&[(&str, &str)], f64) + 'a;
/// Takes a distribution with its labels.
pub(crate) type Distributed<'a> = dyn FnMut(&[(&str, &str)], Distribution) + 'a;

/// A row.
pub(crate) struct Figure {
    /// Its name in INFO; empty if it is not there.
    pub(crate) field: &'static str,
    pub(crate) metric: Option<Metric>,
    pub(crate) source: Source,
}

/// Where a figure comes from.
pub(crate) enum Source {
    Value(fn(&Facts<'_>) -> Value),
    /// Lines of INFO whose names or number are not known beforehand: calls its argument with names and values.
    Lines(fn(&Facts<'_>, &mut Lined<'_>)),
    /// Samples with labels.
    Samples(fn(&Facts<'_>, &mut Sampled<'_>)),
    /// Distributions with labels.
    Distributions(fn(&Facts<'_>, &mut Distributed<'_>)),
}

/// A line of INFO.
pub(crate) const fn field(name: &'static str, value: fn(&Facts<'_>) -> Value) -> Figure {
    Figure { field: name, metric: None, source: Source::Value(value) }
}

/// Lines of INFO.
pub(crate) const fn lines(lines: fn(&Facts<'_>, &mut Lined<'_>)) -> Figure {
    Figure { field: "", metric: None, source: Source::Lines(lines) }
}

/// A value that INFO does not show.
pub(crate) const fn value(value: fn(&Facts<'_>) -> Value) -> Figure {
    field("", value)
}

/// Samples with labels.
pub(crate) const fn samples(samples: fn(&Facts<'_>, &mut Sampled<'_>)) -> Figure {
    Figure { field: "", metric: None, source: Source::Samples(samples) }
}

/// Distributions with labels.
pub(crate) const fn distributions(each: fn(&Facts<'_>, &mut Distributed<'_>)) -> Figure {
    Figure { field: "", metric: None, source: Source::Distributions(each) }
}

impl Figure {
    pub(crate) const fn gauge(self, name: &'static str, help: &'static str) -> Figure {
        self.shown_as(Metric::new(Kind::Gauge, name, help))
    }

    pub(crate) const fn counter(self, name: &'static str, help: &'static str) -> Figure {
        self.shown_as(Metric::new(Kind::Counter, name, help))
    }

    pub(crate) const fn histogram(self, name: &'static str, help: &'static str) -> Figure {
        self.shown_as(Metric::new(Kind::Histogram, name, help))
    }

    pub(crate) const fn summary(self, name: &'static str, help: &'static str) -> Figure {
        self.shown_as(Metric::new(Kind::Summary, name, help))
    }

    const fn shown_as(self, metric: Metric) -> Figure {
        Figure { field: self.field, metric: Some(metric), source: self.source }
    }

    /// The metric counts in greater units than INFO does: one of INFO's is so much of them.
    pub(crate) const fn in_units_of(self, unit: f64) -> Figure {
        match self.metric {
            Some(metric) => self.shown_as(Metric { unit, ..metric }),
            None => self,
        }
    }
}
