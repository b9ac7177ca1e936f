//! The figures of a run: a line, CSV, or the whole distribution.

use super::load::Outcome;
use super::options::Options;
use super::server::Target;
use super::workload::Workload;
use hdrhistogram::Histogram;

/// Printed once, before the tests.
pub(crate) fn announce(options: &Options, nodes: &[Target]) {
    if options.cluster {
        println!("Cluster has {} master nodes:\n", nodes.len());
        for (i, node) in nodes.iter().enumerate() {
            let id = node.id.as_deref().unwrap_or_default();
            println!("Master {i}: {id}{}{}", if id.is_empty() { "" } else { " " }, node.name());
        }
        println!();
    }
    if options.csv {
        println!(
            "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
             \"p99_latency_ms\",\"max_latency_ms\""
        );
    }
}

pub(crate) fn print(options: &Options, nodes: &[Target], workload: &Workload, result: &Outcome) {
    if options.csv {
        let figures: Vec<String> =
            std::iter::once(format!("{:.2}", result.per_second())).chain(summary(&result.latencies)).collect();
        println!("\"{}\",\"{}\"", workload.title, figures.join("\",\""));
    } else if options.quiet {
        let p50 = ms(result.latencies.value_at_quantile(0.5));
        println!("{}: {:.2} requests per second, p50={p50:.3} msec{:24}", workload.title, result.per_second(), "");
    } else {
        print_long(options, nodes, workload, result);
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Mean, smallest, 50th, 95th and 99th percentile, and largest latency, milliseconds.
fn summary(h: &Histogram<u64>) -> [String; 6] {
    let min = if h.is_empty() { 0 } else { h.min() };
    [
        h.mean() / 1000.0,
        ms(min),
        ms(h.value_at_quantile(0.5)),
        ms(h.value_at_quantile(0.95)),
        ms(h.value_at_quantile(0.99)),
        ms(h.max()),
    ]
    .map(|figure| format!("{figure:.3}"))
}

fn print_long(options: &Options, nodes: &[Target], workload: &Workload, result: &Outcome) {
    println!("====== {} ======", workload.title);
    println!("  {} requests completed in {:.2} seconds", result.requests, result.seconds);
    println!("  {} parallel clients", options.clients);
    let payload = if options.command.is_empty() { options.data_size } else { workload.request.len() };
    println!("  {payload} bytes payload");
    println!("  keep alive: {}", i32::from(options.keep_alive));
    let setting = |value: &Option<String>| value.clone().unwrap_or_default();
    if options.cluster {
        println!("  cluster mode: yes ({} masters)", nodes.len());
        for (i, node) in nodes.iter().enumerate() {
            let save = setting(&node.save);
            println!("  node [{i}] configuration:");
            println!("    save: {}", if save.is_empty() { "NONE" } else { &save });
            println!("    appendonly: {}", setting(&node.appendonly));
        }
    } else if let Some(node) = nodes.first() {
        println!("  host configuration \"save\": {}", setting(&node.save));
        println!("  host configuration \"appendonly\": {}", setting(&node.appendonly));
    }
    println!("  multi-thread: {}", if options.threads > 1 { "yes" } else { "no" });
    if options.threads > 1 {
        println!("  threads: {}", options.threads);
    }
    let (h, decimals) = (&result.latencies, options.precision);
    println!("\nLatency by percentile distribution:");
    for step in h.iter_quantiles(1) {
        println!(
            "{:.3}% <= {:.decimals$} milliseconds (cumulative count {})",
            step.quantile_iterated_to() * 100.0,
            ms(step.value_iterated_to()),
            h.count_between(0, step.value_iterated_to())
        );
    }
    println!("\nCumulative distribution of latencies:");
    let mut last = u64::MAX;
    for us in (0..).map(|i: u64| if i < 20 { 103 + i * 100 } else { 3103 + (i - 20) * 1000 }) {
        let count = h.count_between(0, us);
        if count != last {
            let share = 100.0 * count as f64 / h.len().max(1) as f64;
            println!("{share:.3}% <= {:.decimals$} milliseconds (cumulative count {count})", ms(us));
        }
        last = count;
        if count >= h.len() {
            break;
        }
    }
    let [mean, min, p50, p95, p99, max] = summary(h);
    println!("\nSummary:");
    println!("  throughput summary: {:.2} requests per second", result.per_second());
    println!("  latency summary (msec):");
    println!("    {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}", "avg", "min", "p50", "p95", "p99", "max");
    println!("    {mean:>9} {min:>9} {p50:>9} {p95:>9} {p99:>9} {max:>9}");
}
