//! The text that a scrape gets: that of OpenMetrics 1.0 for whoever asks for it, of Prometheus otherwise.
//!
//! Names are those of the samples. OpenMetrics wants every counter's to end in `_total` and its family to be named without that;
//! a counter of another name, as others have established some, is of no known kind there.

use super::figure::{Distribution, Kind, Metric};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// The format for an `Accept` header: OpenMetrics where it is named at all, as those who understand it prefer it.
    pub(crate) fn accepted(accept: &str) -> Format {
        let named = |part: &str| {
            let mut words = part.split(';').map(str::trim);
            words.next() == Some("application/openmetrics-text") && !words.any(|word| matches!(word, "q=0" | "q=0.0"))
        };
        if accept.split(',').any(named) { Format::OpenMetrics } else { Format::Prometheus }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Text in the making.
#[derive(Debug)]
pub(crate) struct Exposition {
    format: Format,
    out: Vec<u8>,
    /// The family that samples go to, and whether its heading is still to be written.
    family: Metric,
    is_new: bool,
}

impl Exposition {
    pub(crate) fn new(format: Format) -> Exposition {
        Exposition {
            format,
            out: Vec::with_capacity(32 << 10),
            family: Metric::new(Kind::Gauge, "", ""),
            is_new: false,
        }
    }

    /// Begins a family. One without samples does not appear.
    pub(crate) fn begin(&mut self, metric: Metric) {
        self.family = metric;
        self.is_new = true;
    }

    fn heading(&mut self) {
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        let Metric { name, kind, help, .. } = self.family;
        let (family, kind) = match (self.format, kind) {
            (_, Kind::Histogram) => (name, "histogram"),
            (Format::Prometheus, Kind::Gauge) => (name, "gauge"),
            (Format::Prometheus, Kind::Counter) => (name, "counter"),
            (Format::Prometheus, Kind::Summary) => (name, "summary"),
            (Format::OpenMetrics, Kind::Summary) => (name, "summary"),
            (Format::OpenMetrics, Kind::Counter) => match name.strip_suffix("_total") {
                Some(family) => (family, "counter"),
                None => (name, "unknown"),
            },
            // A gauge of such a name would look like a counter's.
            (Format::OpenMetrics, Kind::Gauge) if name.ends_with("_total") => (name, "unknown"),
            (Format::OpenMetrics, Kind::Gauge) => (name, "gauge"),
        };
        for (word, text) in [("HELP", help), ("TYPE", kind)] {
            self.raw(&["# ", word, " ", family, " "]);
            match (word, text) {
                ("HELP", text) => escape(text, &mut self.out),
                (_, text) => self.raw(&[text]),
            }
            self.out.push(b'\n');
        }
    }

    fn raw(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
    }

    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, value * self.family.unit);
    }

    pub(crate) fn distribution(&mut self, labels: &[(&str, &str)], of: &Distribution) {
        let (suffix, label) = match self.family.kind {
            Kind::Histogram => ("_bucket", "le"),
            _ => ("", "quantile"),
        };
        for (at, value) in &of.parts {
            self.line(suffix, labels, Some((label, *at)), *value);
        }
        if self.family.kind == Kind::Histogram {
            self.line(suffix, labels, Some((label, f64::INFINITY)), of.count as f64);
        }
        self.line("_sum", labels, None, of.sum);
        self.line("_count", labels, None, of.count as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], number: Option<(&str, f64)>, value: f64) {
        self.heading();
        self.raw(&[self.family.name, suffix]);
        let mut separator = b'{';
        for (name, text) in labels {
            self.out.push(separator);
            separator = b',';
            self.raw(&[name, "=\""]);
            escape(text, &mut self.out);
            self.out.push(b'"');
        }
        if let Some((name, at)) = number {
            self.out.push(separator);
            separator = b',';
            self.raw(&[name, "=\""]);
            write_number(at, self.format == Format::OpenMetrics, &mut self.out);
            self.out.push(b'"');
        }
        if separator == b',' {
            self.out.push(b'}');
        }
        self.out.push(b' ');
        write_number(value, false, &mut self.out);
        self.out.push(b'\n');
    }

    /// What is written so far, to be sent before the rest.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.raw(&["# EOF\n"]);
        }
        self.take()
    }
}

/// Escapes what may not stand in a label's value or a help text.
fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
}

/// Writes a number; `is_canonical`: with a decimal point, as OpenMetrics wants bounds and quantiles.
fn write_number(x: f64, is_canonical: bool, out: &mut Vec<u8>) {
    /// Integers up to this are exact.
    const EXACT: f64 = (1u64 << 53) as f64;
    if x.fract() == 0.0 && x.abs() < EXACT {
        out.extend_from_slice(itoa::Buffer::new().format(x as i64).as_bytes());
        out.extend_from_slice(if is_canonical { b".0" } else { b"" });
    } else if x.is_infinite() {
        out.extend_from_slice(if x > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if x.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(x.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: Format, write: impl FnOnce(&mut Exposition)) -> String {
        let mut out = Exposition::new(format);
        write(&mut out);
        String::from_utf8(out.finish()).unwrap()
    }

    #[test]
    fn the_format_is_that_which_is_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for accept in ["", "*/*", "text/plain", "application/openmetrics-text; q=0", "application/openmetrics-textual"]
        {
            assert_eq!(Format::accepted(accept), Format::Prometheus, "{accept}");
        }
    }

    #[test]
    fn counters_are_families_without_their_suffix() {
        let write = |out: &mut Exposition| {
            out.begin(Metric::new(Kind::Counter, "x_total", "Help."));
            out.sample(&[("cmd", "config|get"), ("odd", "a\"b\\c\nd")], 3.0);
            out.begin(Metric::new(Kind::Counter, "unused_total", "Has no samples."));
            out.begin(Metric::new(Kind::Counter, "errors", "Help."));
            out.sample(&[], 1.5);
        };
        let samples = |family: &str, kind: [&str; 2]| {
            format!(
                "# HELP {family} Help.\n# TYPE {family} {}\nx_total{{cmd=\"config|get\",odd=\"a\\\"b\\\\c\\nd\"}} 3\n\
                 # HELP errors Help.\n# TYPE errors {}\nerrors 1.5\n",
                kind[0], kind[1]
            )
        };
        assert_eq!(text(Format::Prometheus, write), samples("x_total", ["counter", "counter"]));
        assert_eq!(text(Format::OpenMetrics, write), samples("x", ["counter", "unknown"]) + "# EOF\n");
    }

    #[test]
    fn histograms_end_with_all() {
        let write = |out: &mut Exposition| {
            out.begin(Metric::new(Kind::Histogram, "h", "Help."));
            out.distribution(&[], &Distribution { parts: vec![(1.0, 2.0)], count: 5, sum: 9.25 });
        };
        let head = "# HELP h Help.\n# TYPE h histogram\n";
        let rest = "h_bucket{le=\"+Inf\"} 5\nh_sum 9.25\nh_count 5\n";
        assert_eq!(text(Format::Prometheus, write), format!("{head}h_bucket{{le=\"1\"}} 2\n{rest}"));
        assert_eq!(text(Format::OpenMetrics, write), format!("{head}h_bucket{{le=\"1.0\"}} 2\n{rest}# EOF\n"));
    }
}
